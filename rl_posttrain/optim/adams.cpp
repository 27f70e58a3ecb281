// One step of AdamS (arXiv:2505.16363) over many tensors: each element is read and written once. The rule is in
// adams_kernels.py.
#include "values.h"

extern "C" void adams_step(int64_t num_tensors, const int64_t* sizes, WEIGHT* const* weights,
                           GRADIENT* const* gradients, MOMENTUM* const* momenta, const double* scalars,
                           const uint32_t* keys, int num_threads) {
    // Small enough that all threads end at about the same time, large enough that handing out pieces costs nothing.
    constexpr int64_t piece = 1 << 16;
    const REAL old = scalars[0], fresh = scalars[1], keep = scalars[2], add = scalars[3];
    const REAL inner_eps = scalars[4], outer_eps = scalars[5], shrink = scalars[6], step = scalars[7];
#pragma omp parallel num_threads(num_threads)
    for (int64_t tensor = 0; tensor < num_tensors; ++tensor) {
        const int64_t size = sizes[tensor];
        // No thread waits for the others at the end of a tensor.
#pragma omp for schedule(dynamic, 1) nowait
        for (int64_t start = 0; start < size; start += piece) {
            WEIGHT* __restrict weight = weights[tensor] + start;
            const GRADIENT* __restrict gradient = gradients[tensor] + start;
            MOMENTUM* __restrict momentum = momenta[tensor] + start;
            const int64_t count = std::min(piece, size - start);
            write_weights(weight, count, keys == nullptr ? nullptr : keys + tensor, start, [=](int64_t i) {
                const REAL g = read(gradient[i]), m = read(momentum[i]);
                const REAL nu = old * (m * m) + fresh * (g * g);
                const REAL next = keep * m + add * g;
                write(momentum[i], next);
                return shrink * read(weight[i]) - step * (next / (std::sqrt(nu + inner_eps) + outer_eps));
            });
        }
    }
}
