"""What CuPy 14 has of numpy's functions, and the names of their parameters (a test compares them with the real library)."""

from __future__ import annotations

__all__ = ["FUNCTIONS", "UFUNCS"]

_UFUNCS = """
abs absolute acos acosh add arccos arccosh arcsin arcsinh arctan arctan2 arctanh asin asinh atan atan2 atanh
bitwise_and bitwise_count bitwise_invert bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift
bitwise_xor cbrt ceil conj conjugate copysign cos cosh deg2rad degrees divide divmod equal exp exp2 expm1 fabs
float_power floor floor_divide fmax fmin fmod frexp gcd greater greater_equal heaviside hypot invert isfinite
isinf isnan lcm ldexp left_shift less less_equal log log10 log1p log2 logaddexp logaddexp2 logical_and
logical_not logical_or logical_xor maximum minimum mod modf multiply negative nextafter not_equal positive pow
power rad2deg radians reciprocal remainder right_shift rint sign signbit sin sinh sqrt square subtract tan
tanh true_divide trunc
"""
UFUNCS = frozenset(_UFUNCS.split())

_TABLE = """
all: a axis out keepdims
allclose: a b rtol atol equal_nan
amax: a axis out keepdims
amin: a axis out keepdims
angle: z deg
any: a axis out keepdims
append: arr values axis
arange: start stop step dtype
argmax: a axis dtype out keepdims
argmin: a axis dtype out keepdims
argpartition: a kth axis
argsort: a axis kind
argwhere: a
around: a decimals out
array_equal: a1 a2 equal_nan
array_equiv: a1 a2
array_split: ary indices_or_sections axis
asfortranarray: a dtype
astype: x dtype copy
atleast_1d: *arys
atleast_2d: *arys
atleast_3d: *arys
average: a axis weights returned keepdims
bincount: x weights minlength
broadcast_arrays: *args
broadcast_shapes: *args
broadcast_to: array shape
can_cast: from_ to casting
clip: a a_min a_max out
column_stack: tup
compress: condition a axis out
concat: tup axis out dtype casting
concatenate: tup axis out dtype casting
convolve: a v mode
copy: a order
corrcoef: a y rowvar bias ddof dtype
correlate: a v mode
count_nonzero: a axis
cov: a y rowvar bias ddof fweights aweights dtype
cross: a b axisa axisb axisc axis
cumprod: a axis dtype out
cumsum: a axis dtype out
cumulative_prod: x axis dtype out include_initial
cumulative_sum: x axis dtype out include_initial
delete: arr indices axis
diag: v k
diag_indices: n ndim
diag_indices_from: arr
diagflat: v k
diagonal: a offset axis1 axis2
diff: a n axis prepend append
digitize: x bins right
dsplit: ary indices_or_sections
dstack: tup
ediff1d: arr to_end to_begin
expand_dims: a axis
extract: condition a
eye: N M k dtype order
fill_diagonal: a val wrap
flatnonzero: a
flip: a axis
fliplr: a
flipud: a
gradient: f *varargs axis edge_order
histogram: x bins range density weights
histogram2d: x y bins range weights density
histogramdd: sample bins range weights density
hsplit: ary indices_or_sections
hstack: tup dtype casting
identity: n dtype
imag: val
indices: dimensions dtype
interp: x xp fp left right period
intersect1d: arr1 arr2 assume_unique return_indices
isclose: a b rtol atol equal_nan
iscomplex: x
iscomplexobj: x
isdtype: dtype kind
isfortran: a
isin: element test_elements assume_unique invert
isneginf: x out
isposinf: x out
isreal: x
isrealobj: x
isscalar: element
issubdtype: arg1 arg2
iterable: y
ix_: *args
kron: a b
lexsort: keys
linspace: start stop num endpoint retstep dtype axis
logspace: start stop num endpoint base dtype axis
mask_indices: n mask_func k
matrix_transpose: x
max: a axis out keepdims
may_share_memory: a b max_work
mean: a axis dtype out keepdims
median: a axis out overwrite_input keepdims
meshgrid: *xi **kwargs
min: a axis out keepdims
moveaxis: a source destination
nan_to_num: x copy nan posinf neginf
nanargmax: a axis dtype out keepdims
nanargmin: a axis dtype out keepdims
nancumprod: a axis dtype out
nancumsum: a axis dtype out
nanmax: a axis out keepdims
nanmean: a axis dtype out keepdims
nanmedian: a axis out overwrite_input keepdims
nanmin: a axis out keepdims
nanprod: a axis dtype out keepdims
nanstd: a axis dtype out ddof keepdims
nansum: a axis dtype out keepdims
nanvar: a axis dtype out ddof keepdims
ndim: a
nonzero: a
packbits: a axis bitorder
pad: array pad_width mode **kwargs
partition: a kth axis
percentile: a q axis out overwrite_input method keepdims interpolation
permute_dims: a axes
prod: a axis dtype out keepdims
promote_types: type1 type2
ptp: a axis out keepdims
put: a ind v mode
quantile: a q axis out overwrite_input method keepdims interpolation
ravel: a order
ravel_multi_index: multi_index dims mode order
real: val
repeat: a repeats axis
reshape: a newshape order copy
resize: a new_shape
result_type: *arrays_and_dtypes
roll: a shift axis
rollaxis: a axis start
rot90: a k axes
round: a decimals out
searchsorted: a v side sorter
setdiff1d: ar1 ar2 assume_unique
setxor1d: ar1 ar2 assume_unique
shape: a
shares_memory: a b max_work
sort: a axis kind
sort_complex: a
split: ary indices_or_sections axis
squeeze: a axis
stack: tup axis out dtype casting
std: a axis dtype out ddof keepdims
sum: a axis dtype out keepdims
swapaxes: a axis1 axis2
tile: A reps
trace: a offset axis1 axis2 dtype out
transpose: a axes
trapezoid: y x dx axis
tri: N M k dtype
tril: m k
tril_indices: n k m
tril_indices_from: arr k
triu: m k
triu_indices: n k m
triu_indices_from: arr k
union1d: arr1 arr2
unique: ar return_index return_inverse return_counts axis equal_nan
unique_all: x
unique_counts: x
unique_inverse: x
unique_values: x
unpackbits: a axis bitorder
unravel_index: indices dims order
var: a axis dtype out ddof keepdims
vsplit: ary indices_or_sections
vstack: tup dtype casting
"""
FUNCTIONS = {line.split(":")[0]: tuple(line.split(":")[1].split()) for line in _TABLE.strip().splitlines()}
