// Labels: which class each names, and what is noted where there is none.

enum { IGNORED = -1, WRONG = -2 };

// Which labels there are: the classes 0 to classes - 1 and, if has_ignored, one that does not count.
struct Labels {
    const ACCUMULATE* values;
    int classes, ignored, has_ignored;
    unsigned long long* fault;  // see report
};

// Note a label that there is no class for: its position, counted down so that the first wins, and its value as a float.
// The greatest of what is noted stays: see paratrain/backends/cupy/faults.py.
__device__ __forceinline__ void report(unsigned long long* fault, int position, ACCUMULATE label) {
    const unsigned long long order = 0xffffffffu - static_cast<unsigned>(position);
    atomicMax(fault, order << 32 | __float_as_uint(static_cast<float>(label)));
}

// The class at a position, any fraction of the label cut off, or IGNORED, or WRONG.
__device__ __forceinline__ int class_at(const Labels& labels, int position) {
    const ACCUMULATE label = labels.values[position];
    if (labels.has_ignored && trunc(label) == labels.ignored) {
        return IGNORED;
    }
    return label > -1 && label < labels.classes ? static_cast<int>(label) : WRONG;
}

// The same, for one thread of those that look at the position: a wrong label is reported.
__device__ __forceinline__ int checked_class_at(const Labels& labels, int position) {
    const int found = class_at(labels, position);
    if (found == WRONG) {
        report(labels.fault, position, labels.values[position]);
    }
    return found;
}
