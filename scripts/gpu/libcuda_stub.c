/* A libcuda.so.1 for machines without NVIDIA's driver: cuDNN's library of kernels that are compiled when needed asks for these
 * names, and loads "modules" while a plan is built. Nothing runs. check_plans compiles it into a folder of its own, and shows it
 * to its own process alone: never put it where a driver could be looked for. */

#define NO_DEVICE 100
#define FAILS(name) \
    int name(void) { return NO_DEVICE; }
#define SUCCEEDS(name) \
    int name(void) { return 0; }
#define GIVES_A_HANDLE(name)            \
    int name(void **handle) {           \
        *handle = (void *)0x1000;       \
        return 0;                       \
    }

FAILS(cuCtxGetCurrent)
FAILS(cuCtxGetLimit)
FAILS(cuCtxPopCurrent)
FAILS(cuCtxPushCurrent)
FAILS(cuDeviceGet)
FAILS(cuDeviceGetCount)
FAILS(cuDriverGetVersion)
FAILS(cuGetErrorName)
FAILS(cuGetErrorString)
FAILS(cuLaunchCooperativeKernel)
FAILS(cuLaunchKernel)
FAILS(cuLaunchKernelEx)
FAILS(cuOccupancyMaxPotentialClusterSize)
FAILS(cuStreamGetCtx)

GIVES_A_HANDLE(cuKernelGetFunction)
GIVES_A_HANDLE(cuLibraryGetKernel)
GIVES_A_HANDLE(cuLibraryLoadData)
GIVES_A_HANDLE(cuModuleGetFunction)
GIVES_A_HANDLE(cuModuleLoadData)

SUCCEEDS(cuKernelGetAttribute)
SUCCEEDS(cuKernelSetAttribute)
SUCCEEDS(cuLibraryLoadFromFile)
SUCCEEDS(cuLibraryUnload)
SUCCEEDS(cuLinkAddData)
SUCCEEDS(cuLinkComplete)
SUCCEEDS(cuLinkCreate)
SUCCEEDS(cuLinkDestroy)
SUCCEEDS(cuModuleUnload)
SUCCEEDS(cuTensorMapEncodeIm2col)
SUCCEEDS(cuTensorMapEncodeTiled)
