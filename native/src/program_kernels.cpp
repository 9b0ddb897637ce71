#include "deltarnn/program_kernels.hpp"

#include "deltarnn/simd.hpp"

namespace deltarnn::DELTARNN_ISA {

namespace {

constexpr int vectors = panel_columns / lanes;

// Products that are summed before they meet the rest: rounding grows with the length of a sum.
constexpr int block = 64;

// As many rows at once as their sums fit into registers.
#if defined(DELTARNN_ISA_AVX512)
constexpr int most_rows = 8;
#else
constexpr int most_rows = 2;
#endif

// One panel for `rows` rows. Few rows have their sums in parts, so that additions do not wait for each other.
template <int rows>
DELTARNN_INLINE void panel_of(const float* x, std::ptrdiff_t x_stride, const float* panel, const float* bias, int k,
                              float* out, std::ptrdiff_t out_stride, int columns) {
    constexpr int parts = lanes == 16 ? (rows == 1 ? 4 : rows <= 4 ? 2 : 1) : (rows == 1 && lanes == 8 ? 2 : 1);
    vf total[rows][vectors];
    for (int r = 0; r < rows; ++r) {
        for (int v = 0; v < vectors; ++v) total[r][v] = load(bias + v * lanes);
    }
    for (int first = 0; first < k; first += block) {
        const int last = k - first < block ? k : first + block;
        vf sum[parts][rows][vectors] = {};
        int j = first;
        for (; j + parts <= last; j += parts) {
#pragma GCC unroll 4
            for (int p = 0; p < parts; ++p) {
                vf weight[vectors];
#pragma GCC unroll 8
                for (int v = 0; v < vectors; ++v) weight[v] = load(panel + (j + p) * panel_columns + v * lanes);
#pragma GCC unroll 8
                for (int r = 0; r < rows; ++r) {
                    const vf value = splat(x[r * x_stride + j + p]);
#pragma GCC unroll 8
                    for (int v = 0; v < vectors; ++v) sum[p][r][v] = fma(weight[v], value, sum[p][r][v]);
                }
            }
        }
        for (; j < last; ++j) {
            for (int r = 0; r < rows; ++r) {
                const vf value = splat(x[r * x_stride + j]);
                for (int v = 0; v < vectors; ++v)
                    sum[0][r][v] = fma(load(panel + j * panel_columns + v * lanes), value, sum[0][r][v]);
            }
        }
        for (int r = 0; r < rows; ++r) {
            for (int v = 0; v < vectors; ++v) {
                for (int p = 1; p < parts; ++p) sum[0][r][v] += sum[p][r][v];
                total[r][v] += sum[0][r][v];
            }
        }
    }
    for (int r = 0; r < rows; ++r) {
        float* const to = out + r * out_stride;
        for (int v = 0; v < vectors; ++v) {
            const int left = columns - v * lanes;
            if (left >= lanes) {
                store(to + v * lanes, total[r][v]);
            } else {
                for (int i = 0; i < left; ++i) to[v * lanes + i] = total[r][v][i];
            }
        }
    }
}

template <int rows>
DELTARNN_INLINE int rows_of(const float* x, std::ptrdiff_t x_stride, int first, int count, const float* panel,
                            const float* bias, int k, float* out, std::ptrdiff_t out_stride, int columns) {
    int r = first;
    for (; r + rows <= count; r += rows)
        panel_of<rows>(x + r * x_stride, x_stride, panel, bias, k, out + r * out_stride, out_stride, columns);
    return r;
}

void linear(const float* x, std::ptrdiff_t x_stride, int rows, const float* packed, const float* bias, int k,
            float* out, std::ptrdiff_t out_stride, int n) {
    for (int column = 0; column < n; column += panel_columns) {
        const float* const panel = packed + static_cast<std::ptrdiff_t>(column) * k;
        float* const to = out + column;
        const int columns = n - column;
        int r = 0;
        if constexpr (most_rows >= 8)
            r = rows_of<8>(x, x_stride, r, rows, panel, bias + column, k, to, out_stride, columns);
        if constexpr (most_rows >= 4)
            r = rows_of<4>(x, x_stride, r, rows, panel, bias + column, k, to, out_stride, columns);
        r = rows_of<2>(x, x_stride, r, rows, panel, bias + column, k, to, out_stride, columns);
        rows_of<1>(x, x_stride, r, rows, panel, bias + column, k, to, out_stride, columns);
    }
}

}  // namespace

extern const ProgramKernels program_kernels = {linear};

}  // namespace deltarnn::DELTARNN_ISA
