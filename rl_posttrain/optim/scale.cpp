// One step of SCALE (arXiv:2506.16659) over many contiguous matrices. The rule is in scale_kernels.py.
#include "values.h"

// Divides each row of `length` values by its norm: of the momentum, or of the gradient if `momenta` is null.
extern "C" void scale_rows(int64_t num_tensors, const int64_t* num_rows, const int64_t* lengths,
                           WEIGHT* const* weights, GRADIENT* const* gradients, MOMENTUM* const* momenta,
                           const double* scalars, const uint32_t* keys, int num_threads) {
    constexpr int64_t piece = 1 << 16;
    const REAL shrink = scalars[0], lr = scalars[1], smallest = scalars[2], fresh = scalars[3];
    const bool mean = scalars[4] != 0;
#pragma omp parallel num_threads(num_threads)
    for (int64_t tensor = 0; tensor < num_tensors; ++tensor) {
        const int64_t length = lengths[tensor], rows = num_rows[tensor];
        const int64_t rows_a_piece = std::max<int64_t>(1, piece / length);
        // No thread waits for the others at the end of a matrix.
#pragma omp for schedule(dynamic, 1) nowait
        for (int64_t first = 0; first < rows; first += rows_a_piece) {
            for (int64_t row = first; row < std::min(rows, first + rows_a_piece); ++row) {
                WEIGHT* __restrict weight = weights[tensor] + row * length;
                const GRADIENT* __restrict gradient = gradients[tensor] + row * length;
                REAL squares = 0;
                if (momenta == nullptr) {
#pragma omp simd reduction(+ : squares)
                    for (int64_t i = 0; i < length; ++i) {
                        const REAL g = read(gradient[i]);
                        squares += g * g;
                    }
                } else {
                    MOMENTUM* __restrict momentum = momenta[tensor] + row * length;
#pragma omp simd reduction(+ : squares)
                    for (int64_t i = 0; i < length; ++i) {
                        const REAL m = read(momentum[i]);
                        write(momentum[i], m + fresh * (read(gradient[i]) - m));
                        const REAL kept = read(momentum[i]);
                        squares += kept * kept;
                    }
                }
                const REAL norm = std::sqrt(mean ? squares / length : squares);
                const REAL step = lr / std::max(norm, smallest);
                const uint32_t* key = keys == nullptr ? nullptr : keys + tensor;
                if (momenta == nullptr) {
                    write_weights(weight, length, key, row * length, [=](int64_t i) {
                        return shrink * read(weight[i]) - step * read(gradient[i]);
                    });
                } else {
                    const MOMENTUM* __restrict momentum = momenta[tensor] + row * length;
                    write_weights(weight, length, key, row * length, [=](int64_t i) {
                        return shrink * read(weight[i]) - step * read(momentum[i]);
                    });
                }
            }
        }
    }
}

// Divides each column of one [rows, columns] matrix, which begins at `start` in its tensor, by its norm. `sums` is scratch, [ceil(rows / rows_a_piece), columns].
// Pieces are added in a fixed order, whichever thread made them, so that a run can be repeated to the bit.
extern "C" void scale_columns(int64_t rows, int64_t columns, WEIGHT* weights, const GRADIENT* gradients, REAL* sums,
                              int64_t rows_a_piece, const double* scalars, const uint32_t* key, int64_t start,
                              int num_threads) {
    const REAL shrink = scalars[0], lr = scalars[1], smallest = scalars[2];
    const bool mean = scalars[4] != 0;
    const int64_t pieces = (rows + rows_a_piece - 1) / rows_a_piece;
#pragma omp parallel num_threads(num_threads)
    {
#pragma omp for schedule(dynamic, 1)
        for (int64_t piece = 0; piece < pieces; ++piece) {
            REAL* __restrict sum = sums + piece * columns;
            std::fill(sum, sum + columns, REAL(0));
            for (int64_t row = piece * rows_a_piece; row < std::min(rows, (piece + 1) * rows_a_piece); ++row) {
                const GRADIENT* __restrict gradient = gradients + row * columns;
#pragma omp simd
                for (int64_t i = 0; i < columns; ++i) {
                    const REAL g = read(gradient[i]);
                    sum[i] += g * g;
                }
            }
        }
#pragma omp single
        {
            for (int64_t piece = 1; piece < pieces; ++piece)
                for (int64_t i = 0; i < columns; ++i) sums[i] += sums[piece * columns + i];
            for (int64_t i = 0; i < columns; ++i)
                sums[i] = lr / std::max(std::sqrt(mean ? sums[i] / rows : sums[i]), smallest);
        }
#pragma omp for schedule(dynamic, 1)
        for (int64_t piece = 0; piece < pieces; ++piece) {
            for (int64_t row = piece * rows_a_piece; row < std::min(rows, (piece + 1) * rows_a_piece); ++row) {
                WEIGHT* __restrict weight = weights + row * columns;
                const GRADIENT* __restrict gradient = gradients + row * columns;
                write_weights(weight, columns, key, start + row * columns, [=](int64_t i) {
                    return shrink * read(weight[i]) - sums[i] * read(gradient[i]);
                });
            }
        }
    }
}
