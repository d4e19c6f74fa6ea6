// NT-Xent with a teacher; the contract is that of mod.rs, f32. Rows 0 .. n - 1 are the teacher's, n .. 2n - 1 the student's.
#include "device.cuh"

__device__ inline const float* row_of(const float* student, const float* teacher, int n, int c, int i) {
    return i < n ? teacher + (long long)i * c : student + (long long)(i - n) * c;
}

__device__ inline bool left_out(int i, int j, int n) {
    return j == i || j == (i + n / 2) % (2 * n) || j == (i + 2 * n - n / 2) % (2 * n);
}

/// S = R R^T / temperature, `[2n][2n]`: a warp per value, grid 4 n^2 / 8, 256 threads.
BUDGET(ntxent_similarity, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
ntxent_similarity(const float* student, const float* teacher, int n, int c, float temperature, float* s) {
    const int at = blockIdx.x * 8 + threadIdx.x / 32;
    if (at >= 4 * n * n) return;
    const float* const a = row_of(student, teacher, n, c, at / (2 * n));
    const float* const b = row_of(student, teacher, n, c, at % (2 * n));
    float sum = 0.0f;
    for (int k = threadIdx.x % 32; k < c; k += 32) sum += a[k] * b[k];
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) s[at] = sum / temperature;
}

/// logsumexp of each row over the columns that are not left out, `[2n]`: a thread per row.
BUDGET(ntxent_rows, 40, 0);
extern "C" __global__ void __launch_bounds__(32) ntxent_rows(const float* s, int n, float* rows) {
    const int i = blockIdx.x * 32 + threadIdx.x;
    if (i >= 2 * n) return;
    const float* const row = s + (long long)i * 2 * n;
    float top = row[(i + n) % (2 * n)], sum = 0.0f;
    for (int j = 0; j < 2 * n; j++) top = left_out(i, j, n) ? top : fmaxf(top, row[j]);
    for (int j = 0; j < 2 * n; j++) sum += left_out(i, j, n) ? 0.0f : expf(row[j] - top);
    rows[i] = top + logf(sum);
}

/// The loss: rows in order. One thread of one block works.
BUDGET(ntxent_loss, 48, 0);
extern "C" __global__ void __launch_bounds__(32) ntxent_loss(const float* s, const float* rows, int n, float* loss) {
    if (threadIdx.x) return;
    double sum = 0.0;
    for (int i = 0; i < 2 * n; i++) sum += (double)rows[i] - s[(long long)i * 2 * n + (i + n) % (2 * n)];
    loss[0] = (float)(sum / (2 * n));
}

/// What row i of the loss gives to S[i][j], times 2n.
__device__ inline float share(const float* s, const float* rows, int n, int i, int j) {
    const float soft = left_out(i, j, n) ? 0.0f : expf(s[(long long)i * 2 * n + j] - rows[i]);
    return soft - (j == (i + n) % (2 * n) ? 1.0f : 0.0f);
}

/// Gradient of the student: grid (n, c / 256), 256 threads.
BUDGET(ntxent_grad, 48, 0);
extern "C" __global__ void __launch_bounds__(256)
ntxent_grad(const float* dloss, const float* s, const float* rows, const float* student, const float* teacher, int n, int c,
            float temperature, float* dstudent) {
    const int i = n + blockIdx.x, k = blockIdx.y * 256 + threadIdx.x;
    if (k >= c) return;
    float sum = 0.0f;
    for (int j = 0; j < 2 * n; j++) {
        sum += (share(s, rows, n, i, j) + share(s, rows, n, j, i)) * row_of(student, teacher, n, c, j)[k];
    }
    dstudent[(long long)blockIdx.x * c + k] = sum * dloss[0] / (2 * n) / temperature;
}

/// Share of the rows whose positive is larger than all that count: one block of 256 threads.
BUDGET(ntxent_accuracy, 40, 1024);
extern "C" __global__ void __launch_bounds__(256) ntxent_accuracy(const float* s, int n, float* accuracy) {
    SHARED(int, found);  // [256]
    int mine = 0;
    for (int i = threadIdx.x; i < 2 * n; i += 256) {
        const float* const row = s + (long long)i * 2 * n;
        const int positive = (i + n) % (2 * n);
        bool best = true;
        for (int j = 0; j < 2 * n; j++) best = best && (j == positive || left_out(i, j, n) || row[j] < row[positive]);
        mine += best;
    }
    found[threadIdx.x] = mine;
    __syncthreads();
    if (threadIdx.x) return;
    int total = 0;
    for (int i = 0; i < 256; i++) total += found[i];
    accuracy[0] = (float)total / (2 * n);
}
