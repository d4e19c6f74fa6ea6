// Views of volumes and changes of their intensities, f32; the contract is that of mod.rs. Places are found with the
// arithmetic of the CPU path (sample/interpolate.rs), bit for bit, so that both agree on what lies outside.
#include "device.cuh"

/// A view of the voxels low .. low + size of a volume of `shape`.
struct View {
    int size[3], low[3], shape[3], patch[3];
    double affine[12];  // edge coordinates of the view -> those of the volume
    float fill;         // beyond the outermost voxel centres
    int filled;         // 0: the nearest face instead
};

/// Mirrors, and the first voxel of a crop.
struct Crop {
    int sign[3], start[3];
};

/// Whole voxels. Any grid of 256 threads, as all kernels here that name none.
BUDGET(view_crop, 48, 0);
extern "C" __global__ void __launch_bounds__(256) view_crop(const View s, const Crop crop, const float* x, float* y) {
    const long long count = (long long)s.patch[0] * s.patch[1] * s.patch[2];
    for (long long i = blockIdx.x * 256LL + threadIdx.x; i < count; i += gridDim.x * 256LL) {
        const int at[3] = {(int)(i / s.patch[2] / s.patch[1]), (int)(i / s.patch[2] % s.patch[1]), (int)(i % s.patch[2])};
        bool inside = true;
        long long from = 0;
        for (int d = 0; d < 3; d++) {
            const int j = crop.sign[d] > 0 ? crop.start[d] + at[d] : crop.start[d] - 1 - at[d];
            inside = inside && j >= 0 && j < s.shape[d];
            from = from * s.size[d] + j - s.low[d];
        }
        y[i] = inside ? x[from] : s.fill;
    }
}

/// Cubic B-spline coefficients along an axis of n values, in place: value i of line l is at (l / inner) * n * inner + i * inner
/// + l % inner. `start`: weights of the first values in the sum that starts the pass (mirrored faces), times the gain.
BUDGET(view_filter, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
view_filter(float* data, long long lines, int n, long long inner, const float* start, int starts) {
    constexpr float POLE = -0.26794919f, GAIN = 6.0f, END = 0.28867513f;  // sqrt(3) - 2, and POLE / (POLE^2 - 1)
    const long long line = blockIdx.x * 256LL + threadIdx.x;
    if (line >= lines) return;
    float* const v = data + line / inner * n * inner + line % inner;
    float state = 0.0f;
    for (int k = 0; k < starts; k++) state += start[k] * v[k * inner];
    v[0] = state;
    for (int i = 1; i < n; i++) v[i * inner] = state = POLE * state + GAIN * v[i * inner];
    v[(n - 1) * inner] = state = END * (v[(n - 1) * inner] + POLE * v[(n - 2) * inner]);
    for (int i = n - 2; i >= 0; i--) v[i * inner] = state = POLE * (state - v[i * inner]);
}

/// Whole numbers of 2^-32 voxels.
__device__ inline long long fixed(double voxels, double most) {
    voxels = voxels > most ? most : voxels < -most ? -most : voxels;
    return (long long)(voxels * 4294967296.0);
}

/// Index i of an axis of n voxels, mirrored about the centres of the outermost ones.
__device__ inline int mirror(int i, int n) {
    if (n == 1) return 0;
    i = (i < 0 ? -i : i) % (2 * n - 2);
    return i < n ? i : 2 * n - 2 - i;
}

constexpr int STEP = 4;  // an elastic field is known at every fourth voxel

/// Places 0, 4, 8 ... of an axis, so many that the last voxel lies between two.
__device__ inline int kept(int n) { return (n - 1 + STEP - 1) / STEP + 1; }

/// An elastic field at a voxel of the view, linear between its nodes.
__device__ inline float displaced(const float* field, const int* patch, int z, int v, int x) {
    const int ny = kept(patch[1]), nx = kept(patch[2]), at = x / STEP;
    const float tz = z % STEP / 4.0f, ty = v % STEP / 4.0f, tx = x % STEP / 4.0f;
    float ends[2] = {0.0f, 0.0f};
    for (int corner = 0; corner < 4; corner++) {
        const float weight = (corner & 2 ? tz : 1.0f - tz) * (corner & 1 ? ty : 1.0f - ty);
        const float* const line = field + ((long long)(z / STEP + (corner >> 1)) * ny + v / STEP + (corner & 1)) * nx + at;
        if (weight > 0.0f) {
            ends[0] += weight * line[0];
            if (tx > 0.0f) ends[1] += weight * line[1];
        }
    }
    return tx > 0.0f ? ends[0] * (1.0f - tx) + ends[1] * tx : ends[0];
}

/// Where voxel i of the view lies in the volume, z, y, x in 2^-32 voxels, moved to the nearest face; false beyond the outermost
/// centres. bend: displacements (z, y, x) of the points, `[3][nodes]`, or null.
__device__ inline bool placed(const View& s, const float* bend, long long i, long long place[3]) {
    constexpr int LANES = 16;  // voxels of a row that the CPU path places from one base
    constexpr double FAR = 536870912.0;
    const int at[3] = {(int)(i / s.patch[2] / s.patch[1]), (int)(i / s.patch[2] % s.patch[1]), (int)(i % s.patch[2])};
    const int lane = at[2] % LANES;
    const double z = (double)at[0] + 0.5, v = (double)at[1] + 0.5, x = (double)(at[2] - lane) + 0.5;
    float by[3] = {0.0f, 0.0f, 0.0f};
    if (bend) {
        const long long nodes = (long long)kept(s.patch[0]) * kept(s.patch[1]) * kept(s.patch[2]);
        for (int d = 0; d < 3; d++) by[d] = displaced(bend + d * nodes, s.patch, at[0], at[1], at[2]);
    }
    bool within = true;
#pragma unroll
    for (int d = 0; d < 3; d++) {
        const double* const a = s.affine + 4 * d;
        const long long last = (long long)(s.shape[d] - 1) << 32;
        const double base = exact_product(a[0], z) + exact_product(a[1], v) + exact_product(a[2], x) + a[3] - 0.5;
        long long c = fixed(base, FAR) + fixed(a[2], FAR / LANES) * lane;
        if (bend) c += fixed(exact_product(a[0], by[0]) + exact_product(a[1], by[1]) + exact_product(a[2], by[2]), FAR);
        within = within && c >= 0 && c <= last;
        place[d] = c < 0 ? 0 : c > last ? last : c;
    }
    return within;
}

/// How far a place lies beyond a voxel, 0 to 1.
__device__ inline float beyond(long long place) { return (float)(place >> 8 & 0xffffff) * (1.0f / 16777216.0f); }

/// Voxel j of axis d, mirrored, in the region.
__device__ inline int tap(const View& s, int d, int j) {
    const int at = mirror(j, s.shape[d]) - s.low[d];
    return at < 0 ? 0 : at < s.size[d] ? at : s.size[d] - 1;
}

/// The sum of T^3 taps around each voxel of the view.
template <int T> __device__ inline void interpolate(const View& s, const float* field, const float* bend, float* y) {
    const long long count = (long long)s.patch[0] * s.patch[1] * s.patch[2];
    for (long long i = blockIdx.x * 256LL + threadIdx.x; i < count; i += gridDim.x * 256LL) {
        long long place[3];
        const bool within = placed(s, bend, i, place);
        int taps[3][T];
        float weights[3][T];
#pragma unroll
        for (int d = 0; d < 3; d++) {
            const float t = beyond(place[d]), u = 1.0f - t;
            if (T == 2) {
                weights[d][0] = u;
                weights[d][1] = t;
            } else {
                weights[d][0] = u * u * u * (1.0f / 6.0f);
                weights[d][1] = 2.0f / 3.0f - t * t * (2.0f - t) * 0.5f;
                weights[d][T - 2] = 2.0f / 3.0f - u * u * (2.0f - u) * 0.5f;
                weights[d][T - 1] = t * t * t * (1.0f / 6.0f);
            }
#pragma unroll
            for (int k = 0; k < T; k++) taps[d][k] = tap(s, d, (int)(place[d] >> 32) + k - (T / 2 - 1));
        }
        float total = 0.0f;
#pragma unroll
        for (int a = 0; a < T; a++) {
            float plane = 0.0f;
#pragma unroll
            for (int b = 0; b < T; b++) {
                const float* const line = field + ((long long)taps[0][a] * s.size[1] + taps[1][b]) * s.size[2];
                float sum = 0.0f;
#pragma unroll
                for (int c = 0; c < T; c++) sum += weights[2][c] * line[taps[2][c]];
                plane += weights[1][b] * sum;
            }
            total += weights[0][a] * plane;
        }
        y[i] = within || !s.filled ? total : s.fill;
    }
}

/// The view by cubic B-splines of coefficients. bend: displacements (z, y, x) of its points, `[3][nodes]`, or null.
BUDGET(view_taps, 96, 0);
extern "C" __global__ void __launch_bounds__(256)
view_taps(const View s, const float* coefficients, const float* bend, float* y) {
    interpolate<4>(s, coefficients, bend, y);
}

/// The view, linear between voxels.
BUDGET(view_linear, 80, 0);
extern "C" __global__ void __launch_bounds__(256) view_linear(const View s, const float* x, const float* bend, float* y) {
    interpolate<2>(s, x, bend, y);
}

/// 64 random bits: number `counter` of `seed` (splitmix64).
__device__ inline unsigned long long bits(unsigned seed, unsigned long long counter) {
    unsigned long long h = ((unsigned long long)seed << 32 ^ (counter + 1)) * 0x9e3779b97f4a7c15ULL;
    h = (h ^ h >> 30) * 0xbf58476d1ce4e5b9ULL;
    h = (h ^ h >> 27) * 0x94d049bb133111ebULL;
    return h ^ h >> 31;
}

/// cos(2 pi t) for 0 <= t < 1, as the sine of an angle within a quarter turn, by the series of the CPU: sinf brings a stack.
__device__ inline float cosine(float t) {
    const float x = (fabsf(t - 0.5f) - 0.25f) * 6.2831853f, q = x * x;
    float p = 1.0f / 6227020800.0f;
    p = p * q - 1.0f / 39916800.0f;
    p = p * q + 1.0f / 362880.0f;
    p = p * q - 1.0f / 5040.0f;
    p = p * q + 1.0f / 120.0f;
    p = p * q - 1.0f / 6.0f;
    return (p * q + 1.0f) * x;
}

/// Standard normal number `counter` of `seed` (Box and Muller).
__device__ inline float normal(unsigned seed, unsigned long long counter) {
    const unsigned long long h = bits(seed, counter);
    const float u = ((float)(int)(h >> 40) + 1.0f) / 16777217.0f, turn = (float)(int)(h & 0xffffff) / 16777216.0f;
    return sqrtf(-2.0f * logf(u)) * cosine(turn);
}

/// Uniform in -1 .. 1: numbers first .. of `seed`, which comes as its bits.
BUDGET(view_uniform, 40, 0);
extern "C" __global__ void __launch_bounds__(256) view_uniform(long long n, long long first, int seed, float* v) {
    for (long long i = blockIdx.x * 256LL + threadIdx.x; i < n; i += gridDim.x * 256LL) {
        v[i] = 2.0f * ((float)(int)(bits((unsigned)seed, first + i) >> 40) / 16777216.0f) - 1.0f;
    }
}

/// One axis of an elastic field: smoothed by `bell` of 2 radius + 1 weights, 0 outside, every fourth place kept; y of `count`
/// values.
BUDGET(view_smooth, 48, 0);
extern "C" __global__ void __launch_bounds__(256)
view_smooth(const float* x, int n, long long inner, const float* bell, int radius, long long count, float* y) {
    const int places = kept(n);
    for (long long i = blockIdx.x * 256LL + threadIdx.x; i < count; i += gridDim.x * 256LL) {
        const int at = (int)(i / inner % places) * STEP;
        const float* const line = x + i / inner / places * n * inner + i % inner;
        float sum = 0.0f;
        for (int j = at < radius ? 0 : at - radius; j <= at + radius && j < n; j++) sum += bell[j + radius - at] * line[j * inner];
        y[i] = sum;
    }
}

/// Gaussian noise of standard deviation a (kind 0), Rician (1), or multiplicative (8). The seed comes as its bits.
BUDGET(view_noise, 48, 0);
extern "C" __global__ void __launch_bounds__(256) view_noise(float* v, long long n, int kind, float a, int seed) {
    for (long long i = blockIdx.x * 256LL + threadIdx.x; i < n; i += gridDim.x * 256LL) {
        const float by = a * normal((unsigned)seed, 2 * i), p = v[i] + by;
        if (kind != 1) {
            v[i] = kind ? v[i] * (1.0f + by) : p;
        } else {
            const float q = a * normal((unsigned)seed, 2 * i + 1);
            v[i] = sqrtf(p * p + q * q) * (v[i] > 0.0f ? 1.0f : v[i] < 0.0f ? -1.0f : 0.0f);
        }
    }
}

/// One axis of a separable filter, `bell` of 2 radius + 1 weights; reflected about the outer faces.
BUDGET(view_blur, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
view_blur(const float* x, long long count, int n, long long inner, const float* bell, int radius, float* y) {
    for (long long i = blockIdx.x * 256LL + threadIdx.x; i < count; i += gridDim.x * 256LL) {
        const int at = (int)(i / inner % n);
        const float* const line = x + i - at * inner;
        float sum = 0.0f;
        for (int k = -radius; k <= radius; k++) {
            int j = (at + k) % (2 * n);
            j += j < 0 ? 2 * n : 0;
            sum += bell[k + radius] * line[(j < n ? j : 2 * n - 1 - j) * inner];
        }
        y[i] = sum;
    }
}

BUDGET(view_scale, 32, 0);
extern "C" __global__ void __launch_bounds__(256) view_scale(float* v, long long n, float factor) {
    for (long long i = blockIdx.x * 256LL + threadIdx.x; i < n; i += gridDim.x * 256LL) v[i] *= factor;
}

/// What is known of many values.
struct Moments {
    double mean, std, low, high;
};

/// Joins the sums (and squares) and the extremes of two sets.
__device__ inline void join(Moments& a, const Moments& b) {
    a.mean += b.mean;
    a.std += b.std;
    a.low = b.low < a.low ? b.low : a.low;
    a.high = b.high > a.high ? b.high : a.high;
}

/// Sums, sums of squares, extremes: partial `[blocks]`.
BUDGET(view_sums, 48, 8192);
extern "C" __global__ void __launch_bounds__(256) view_sums(const float* v, long long n, Moments* partial) {
    SHARED(Moments, all);
    Moments own{0.0, 0.0, 1e300, -1e300};
    for (long long i = blockIdx.x * 256LL + threadIdx.x; i < n; i += gridDim.x * 256LL) {
        const double value = v[i];
        join(own, {value, value * value, value, value});
    }
    all[threadIdx.x] = own;
    for (int half = 128; half; half >>= 1) {
        __syncthreads();
        if ((int)threadIdx.x < half) join(all[threadIdx.x], all[threadIdx.x + half]);
    }
    if (threadIdx.x == 0) partial[blockIdx.x] = all[0];
}

/// One thread of one block adds up the parts in order.
BUDGET(view_moments, 48, 0);
extern "C" __global__ void __launch_bounds__(32) view_moments(const Moments* partial, int blocks, long long n, Moments* out) {
    if (threadIdx.x) return;
    Moments all = partial[0];
    for (int i = 1; i < blocks; i++) join(all, partial[i]);
    const double mean = all.mean / n, variance = all.std / n - mean * mean;
    *out = {mean, variance > 0.0 ? sqrt(variance) : 0.0, all.low, all.high};
}

/// Times `factor` about the mean, within the range.
BUDGET(view_contrast, 32, 0);
extern "C" __global__ void __launch_bounds__(256) view_contrast(float* v, long long n, float factor, const Moments* of) {
    const float mean = (float)of->mean, low = (float)of->low, high = (float)of->high;
    for (long long i = blockIdx.x * 256LL + threadIdx.x; i < n; i += gridDim.x * 256LL) {
        v[i] = fminf(fmaxf((v[i] - mean) * factor + mean, low), high);
    }
}

/// Scaled to [0, 1], to the power, and back.
BUDGET(view_gamma, 40, 0);
extern "C" __global__ void __launch_bounds__(256) view_gamma(float* v, long long n, float exponent, const Moments* of) {
    const float low = (float)of->low, range = (float)of->high - low + 1e-7f, least = exponent == 0.0f ? 1.0f : 0.0f;
    for (long long i = blockIdx.x * 256LL + threadIdx.x; i < n; i += gridDim.x * 256LL) {
        const float t = (v[i] - low) / range;
        v[i] = (t < 1.17549435e-38f ? least : expf(exponent * logf(t))) * range + low;
    }
}

/// Mean and deviation `is` become those of `was`.
BUDGET(view_restore, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
view_restore(float* v, long long n, const Moments* was, const Moments* is) {
    const double factor = was->std / (is->std + 1e-8);
    for (long long i = blockIdx.x * 256LL + threadIdx.x; i < n; i += gridDim.x * 256LL) {
        v[i] = (float)((v[i] - is->mean) * factor + was->mean);
    }
}

/// To the power, of the image scaled to [0, 1], or of its inverse.
BUDGET(view_power, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
view_power(float* v, long long n, float exponent, int inverted, const Moments* of) {
    const float low = (float)of->low, high = (float)of->high, least = exponent == 0.0f ? 1.0f : 0.0f;
    const float range = fmaxf(high - low, 1.17549435e-38f);
    for (long long i = blockIdx.x * 256LL + threadIdx.x; i < n; i += gridDim.x * 256LL) {
        const float t = fminf(fmaxf((inverted ? high - v[i] : v[i] - low) / range, 0.0f), 1.0f);
        const float p = t < 1.17549435e-38f ? least : expf(exponent * logf(t));
        v[i] = inverted ? high - p * range : p * range + low;
    }
}

/// Times 1 - the sum over the axes of ((i - centre) / n)^2.
BUDGET(view_bias, 40, 0);
extern "C" __global__ void __launch_bounds__(256) view_bias(float* v, const View s, float cz, float cy, float cx) {
    const long long count = (long long)s.patch[0] * s.patch[1] * s.patch[2];
    for (long long i = blockIdx.x * 256LL + threadIdx.x; i < count; i += gridDim.x * 256LL) {
        const float z = ((float)(i / s.patch[2] / s.patch[1]) - cz) / s.patch[0];
        const float u = ((float)(i / s.patch[2] % s.patch[1]) - cy) / s.patch[1], x = ((float)(i % s.patch[2]) - cx) / s.patch[2];
        v[i] *= 1.0f - z * z - u * u - x * x;
    }
}

/// The magnitude of the values convolved in a circle along an axis of n values; response: `[2][n]`, real and imaginary.
BUDGET(view_spectral, 48, 0);
extern "C" __global__ void __launch_bounds__(256)
view_spectral(const float* x, long long count, int n, long long inner, const float* response, float* y) {
    for (long long i = blockIdx.x * 256LL + threadIdx.x; i < count; i += gridDim.x * 256LL) {
        const int at = (int)(i / inner % n);
        const float* const line = x + i - at * inner;
        float re = 0.0f, im = 0.0f;
        for (int j = 0; j < n; j++) {
            const int k = at - j < 0 ? at - j + n : at - j;
            re += response[k] * line[j * inner];
            im += response[n + k] * line[j * inner];
        }
        y[i] = sqrtf(re * re + im * im);
    }
}

/// Into the range (way 0), from it to [0, 1] (1), back (2).
BUDGET(view_range, 40, 0);
extern "C" __global__ void __launch_bounds__(256) view_range(float* v, long long n, int way, const Moments* of) {
    const double low = of->low, high = of->high, range = high > low ? high - low : 1.0;
    for (long long i = blockIdx.x * 256LL + threadIdx.x; i < n; i += gridDim.x * 256LL) {
        if (way == 0) v[i] = fminf(fmaxf(v[i], (float)low), (float)high);
        else v[i] = (float)(way == 1 ? (v[i] - low) / range : exact_product(v[i], range) + low);
    }
}

/// The nearest voxel at every place of a coarser grid: y of s.patch from x of s.size, s.affine their ratios on its diagonal.
BUDGET(view_nearest, 48, 0);
extern "C" __global__ void __launch_bounds__(256) view_nearest(const View s, const float* x, float* y) {
    const long long count = (long long)s.patch[0] * s.patch[1] * s.patch[2];
    for (long long i = blockIdx.x * 256LL + threadIdx.x; i < count; i += gridDim.x * 256LL) {
        const int at[3] = {(int)(i / s.patch[2] / s.patch[1]), (int)(i / s.patch[2] % s.patch[1]), (int)(i % s.patch[2])};
        long long from = 0;
        for (int d = 0; d < 3; d++) {
            const int j = (int)((at[d] + 0.5) * s.affine[5 * d]);
            from = from * s.size[d] + (j < s.size[d] ? j : s.size[d] - 1);
        }
        y[i] = x[from];
    }
}
