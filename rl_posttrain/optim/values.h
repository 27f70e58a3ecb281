// Reading and writing values of each dtype. All arithmetic is done in REAL.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

using bfloat16 = uint16_t;  // the upper half of a float; with a class for it, compilers do not vectorize the loops

inline float read(float value) { return value; }
inline double read(double value) { return value; }
inline float read(bfloat16 bits) {
    const uint32_t wide = static_cast<uint32_t>(bits) << 16;
    float value;
    std::memcpy(&value, &wide, sizeof value);
    return value;
}

inline void write(float& place, REAL value) { place = value; }
inline void write(double& place, REAL value) { place = value; }
// Rounds to nearest, ties to even, as torch does.
inline void write(bfloat16& place, REAL real) {
    const float value = real;
    uint32_t wide;
    std::memcpy(&wide, &value, sizeof wide);
    const uint32_t rounded = (wide + 0x7fff + ((wide >> 16) & 1)) >> 16;
    // Rounding could turn a NaN into an infinity.
    place = (wide & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : rounded;
}

// Rounds up or down by chance, as rounding.py does: `key` is the tensor's, `number` the element's place. Others to nearest.
template <typename T> inline void write_by_chance(T& place, REAL value, uint32_t, uint32_t) { write(place, value); }
template <> inline void write_by_chance(bfloat16& place, REAL real, uint32_t key, uint32_t number) {
    const float value = real;
    uint32_t wide, hash = number ^ key;
    std::memcpy(&wide, &value, sizeof wide);
    hash ^= hash >> 16;
    hash *= 0x7feb352d;
    hash ^= hash >> 15;
    hash *= 0x846ca68b;
    hash ^= hash >> 16;
    const uint32_t rounded = (wide + (hash & 0xffff)) >> 16;
    const uint32_t odd = (wide & 0x7fffff) ? 0x7fc0 : wide >> 16;  // NaN or infinite
    place = (wide & 0x7f800000) == 0x7f800000 ? odd : rounded;
}

// Gives each of `count` weights the value next(i), to nearest where `key` is null, else by chance: it points to the key
// of their tensor, in which `start` is the place of the first of them.
template <typename Next>
inline void write_weights(WEIGHT* weights, int64_t count, const uint32_t* key, int64_t start, const Next& next) {
    if (key == nullptr) {
#pragma omp simd
        for (int64_t i = 0; i < count; ++i) write(weights[i], next(i));
    } else {
        const uint32_t its = *key, first = static_cast<uint32_t>(start);
#pragma omp simd
        for (int64_t i = 0; i < count; ++i)
            write_by_chance(weights[i], next(i), its, first + static_cast<uint32_t>(i));
    }
}
