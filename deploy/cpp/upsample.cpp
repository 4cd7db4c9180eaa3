#include "upsample.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <future>
#include <limits>

#include "errors.hpp"

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int kGrain = 128;  // pixels that are interpolated together, so that most are there for the next row of cells
constexpr int kPixelsPerTask = 1 << 17;  // for fewer pixels, another thread costs more than it saves

// The places of the pixels of one axis among n coarse values.
struct Axis {
    std::vector<int> cell;      // of each pixel: the coarse value at or before it, from 0 to n - 1, never decreasing
    std::vector<float> weight;  // of each pixel: the weight of the next coarse value, from 0 to 1
    std::vector<int> edge;      // n + 1 entries: the first pixel of each cell, and at the end the number of pixels
};

// The rounding of a * (1 - w) + b * w decides near-ties. Numba fuses where the CPU can, and so does this.
inline float mix(float a, float b, float weight) {
#ifdef FP_FAST_FMAF
    return std::fma(weight, b - a, a);
#else
    return a + weight * (b - a);
#endif
}

// Find the coarse value before each place of a grid of `length`, and the weight of the value after it. As in Paddle's
// kernel for CPUs, the value is found in double precision and the weight in that of Real.
template <class Real>
Axis locate(const std::vector<double>& places, int coarse, int length, bool align_corners) {
    Axis axis;
    const int shorten = align_corners ? 1 : 0;
    const Real ratio = length > 1 ? Real(coarse - shorten) / Real(length - shorten) : Real(0);
    for (const double place : places) {
        Real position = Real(place) * ratio;
        double exact = position;
        if (!align_corners) {
            position = std::max((Real(place) + Real(0.5)) * ratio - Real(0.5), Real(0));
            exact = std::max((place + 0.5) * double(ratio) - 0.5, 0.0);
        }
        const int cell = std::min(int(exact), coarse - 1);
        axis.cell.push_back(cell);
        axis.weight.push_back(float(std::clamp(double(position) - cell, 0.0, 1.0)));
    }
    for (int value = 0; value <= coarse; ++value)
        axis.edge.push_back(std::lower_bound(axis.cell.begin(), axis.cell.end(), value) - axis.cell.begin());
    return axis;
}

// Place the pixels of one axis of the frame. `lengths` holds the frame's length and its length after each step.
Axis place(int coarse, const std::vector<int>& lengths, const std::vector<SizeStep>& steps, bool align_corners) {
    std::vector<double> places(lengths[0]);
    for (int i = 0; i < lengths[0]; ++i) places[i] = i;
    bool resized = false;
    for (size_t i = 0; i < steps.size(); ++i) {
        if (steps[i].pads) continue;
        resized = true;
        const double ratio = double(lengths[i + 1]) / lengths[i];
        for (double& value : places) value = std::clamp((value + 0.5) * ratio - 0.5, 0.0, double(lengths[i + 1] - 1));
    }
    // Without a resize the places are integers, and single precision gives exactly the weights that Paddle uses.
    return resized ? locate<double>(places, coarse, lengths.back(), align_corners)
                   : locate<float>(places, coarse, lengths.back(), align_corners);
}

// A cell is the square between four neighbouring coarse logits. A class that is the first largest at all four corners
// wins everywhere in the cell; only the other cells, called open, are computed, and only for the classes that can win
// in one of them. Which values are computed is part of the result where two logits are closer than rounding, so every
// choice here is that of paddle_rt/inference/upsample_kernels.py.
struct Kernel {
    const float* logits;
    int classes, height, width;  // of the coarse logits
    Axis lines, columns;

    // A coarse row of every class, times 1/4 (exact, and no difference overflows), its last value twice.
    struct Row {
        int y = -1;
        std::vector<float> values;            // [classes, width + 1]
        std::vector<int> first;               // [width + 1], the first largest class
        std::vector<float> wide;              // [classes, pixels], interpolated along the row where it was needed
        std::vector<int> wide_from, wide_to;  // [classes], the pixels that `wide` holds
    };

    // Returns the number of values that are not finite.
    int load(int y, Row& row) const {
        if (row.y == y) return 0;
        row.y = y;
        row.wide_from.assign(classes, 0);
        row.wide_to.assign(classes, 0);
        std::fill(row.first.begin(), row.first.end(), 0);
        const float* start = logits + size_t(y) * width;
        std::vector<float> best(start, start + width);
        int not_finite = 0;
        for (int c = 0; c < classes; ++c) {
            const float* source = start + size_t(c) * height * width;
            float* target = &row.values[size_t(c) * (width + 1)];
            for (int x = 0; x < width; ++x) {
                not_finite += !(std::abs(source[x]) <= std::numeric_limits<float>::max());
                target[x] = source[x] * 0.25f;
                row.first[x] = source[x] > best[x] ? c : row.first[x];
                best[x] = std::max(best[x], source[x]);
            }
            target[width] = target[width - 1];
        }
        row.first[width] = row.first[width - 1];
        return not_finite;
    }

    // Find the value that a class must reach at a corner to win in a cell: the maximum over the classes of their
    // smallest corner; infinity in cells that are not open. Returns whether any cell is open.
    bool find_bound(const Row& above, const Row& below, std::vector<float>& bound) const {
        std::vector<char> open(width);
        int count = 0;
        for (int x = 0; x < width; ++x) {
            const int name = above.first[x];
            open[x] = !((name == above.first[x + 1]) & (name == below.first[x]) & (name == below.first[x + 1]));
            count += open[x];
        }
        if (!count) return false;
        std::fill(bound.begin(), bound.end(), -kInfinity);
        for (int c = 0; c < classes; ++c) {
            const float *a = &above.values[size_t(c) * (width + 1)], *b = &below.values[size_t(c) * (width + 1)];
            for (int x = 0; x < width; ++x)
                bound[x] = std::max(bound[x], std::min(std::min(a[x], a[x + 1]), std::min(b[x], b[x + 1])));
        }
        for (int x = 0; x < width; ++x) bound[x] = open[x] ? bound[x] : kInfinity;
        return true;
    }

    // Find the pixels from the first to the last cell in which a class can win; an empty range where there is none.
    std::pair<int, int> span(const Row& above, const Row& below, int c, const std::vector<float>& bound) const {
        const float *a = &above.values[size_t(c) * (width + 1)], *b = &below.values[size_t(c) * (width + 1)];
        auto reaches = [&](int x) { return std::max(std::max(a[x], a[x + 1]), std::max(b[x], b[x + 1])) >= bound[x]; };
        int first = 0, last = width - 1;
        while (first < width && !reaches(first)) ++first;
        while (last > first && !reaches(last)) --last;
        return first == width ? std::pair(0, 0) : std::pair(columns.edge[first], columns.edge[last + 1]);
    }

    // Interpolate a class along a coarse row, so that the pixels from p to q - 1 are there.
    void stretch(Row& row, int c, int p, int q) const {
        if (row.wide_from[c] <= p && q <= row.wide_to[c]) return;
        p = row.wide_from[c] = p / kGrain * kGrain;
        q = row.wide_to[c] = std::min((q / kGrain + 1) * kGrain, int(columns.cell.size()));
        const float* values = &row.values[size_t(c) * (width + 1)];
        float* wide = &row.wide[c * columns.cell.size()];
        const int* cell = columns.cell.data();
        const float* weight = columns.weight.data();
        for (int i = p; i < q; ++i) wide[i] = mix(values[cell[i]], values[cell[i] + 1], weight[i]);
    }

    // Label the pixel rows from top to end - 1; returns the number of logits that are not finite.
    int label_rows(int top, int end, cv::Mat& labels) const {
        struct Contender {
            int c, p, q;
        };
        const int pixels = int(columns.cell.size());
        Row even, odd;
        for (Row* row : {&even, &odd}) {
            row->values.resize(size_t(classes) * (width + 1));
            row->first.resize(width + 1);
            row->wide.resize(size_t(classes) * pixels);
        }
        std::vector<float> bound(width), ceiling(pixels), best(pixels);
        std::vector<int> fill(pixels), names(pixels);
        std::vector<Contender> contenders;
        int not_finite = 0;
        while (top < end) {
            const int y = lines.cell[top], next = std::min(y + 1, height - 1);
            Row &above = y & 1 ? odd : even, &below = next & 1 ? odd : even;
            not_finite += load(y, above);
            not_finite += load(next, below);
            for (int p = 0; p < pixels; ++p) fill[p] = above.first[columns.cell[p]];
            contenders.clear();
            if (find_bound(above, below, bound)) {
                for (int p = 0; p < pixels; ++p)
                    ceiling[p] = bound[columns.cell[p]] == kInfinity ? kInfinity : -kInfinity;
                for (int c = 0; c < classes; ++c) {
                    const auto [p, q] = span(above, below, c, bound);
                    if (p == q) continue;
                    stretch(above, c, p, q);
                    stretch(below, c, p, q);
                    contenders.push_back({c, p, q});
                }
            }
            const int stop = std::min(lines.edge[y + 1], end);
            for (; top < stop; ++top) {
                std::copy(fill.begin(), fill.end(), names.begin());
                std::copy(ceiling.begin(), ceiling.end(), best.begin());
                for (const auto& [c, p, q] : contenders) {
                    const float *a = &above.wide[size_t(c) * pixels], *b = &below.wide[size_t(c) * pixels];
                    compete(a, b, lines.weight[top], c, p, q, best.data(), names.data());
                }
                std::copy(names.begin(), names.end(), labels.ptr<uchar>(top));
            }
        }
        return not_finite;
    }

    // Compare a class with the best one so far along a row of pixels; among equal values the first class stays.
    static void compete(const float* __restrict above, const float* __restrict below, float weight, int c, int p, int q,
                        float* __restrict best, int* __restrict names) {
        for (int i = p; i < q; ++i) {
            const float value = mix(above[i], below[i], weight);
            names[i] = value > best[i] ? c : names[i];
            best[i] = value > best[i] ? value : best[i];
        }
    }
};

}  // namespace

cv::Mat labels_from_logits(const float* logits, int classes, cv::Size coarse, cv::Size size, bool align_corners,
                           const std::vector<SizeStep>& steps, int threads) {
    std::vector<int> heights, widths;
    for (const SizeStep& step : steps) {
        heights.push_back(step.before.height);
        widths.push_back(step.before.width);
    }
    heights.push_back(size.height);
    widths.push_back(size.width);
    const Kernel kernel{logits,
                        classes,
                        coarse.height,
                        coarse.width,
                        place(coarse.height, heights, steps, align_corners),
                        place(coarse.width, widths, steps, align_corners)};
    cv::Mat labels(heights[0], widths[0], CV_8UC1);
    // More tasks than threads, since some rows have many open cells and others none.
    const int tasks =
        std::max<int>(1, std::min<size_t>({size_t(2 * threads), size_t(labels.rows), labels.total() / kPixelsPerTask}));
    std::atomic<int> next{0}, not_finite{0};
    auto work = [&] {
        for (int task; (task = next++) < tasks;)
            not_finite +=
                kernel.label_rows(labels.rows * int64_t(task) / tasks, labels.rows * int64_t(task + 1) / tasks, labels);
    };
    std::vector<std::future<void>> others;
    for (int i = 1; i < std::min(threads, tasks); ++i) others.push_back(std::async(std::launch::async, work));
    work();
    for (std::future<void>& other : others) other.get();
    if (not_finite) fail("the logits contain NaN or infinity, so no class is largest; check the network's weights");
    return labels;
}
