// Labels at the frame's size from a network's coarse logits, equal to those of paddle_rt/inference/upsample.py.
#pragma once

#include <opencv2/core.hpp>
#include <vector>

// A change of an image's size by the preprocessing: padding at the right and at the bottom, or a resize.
struct SizeStep {
    bool pads;
    cv::Size before;
};

// Find each pixel's first largest class after bilinear interpolation.
//   logits         float32 [classes, coarse.height, coarse.width], finite, of at most 256 classes
//   size           the size of the network's input, to which the network would have resized its logits
//   align_corners  whether the network's own resize aligns the corners
//   steps          the changes of the frame's size, which are undone
// Returns labels uint8 at the frame's size. Throws a UserError where the logits contain NaN or infinity.
cv::Mat labels_from_logits(const float* logits, int classes, cv::Size coarse, cv::Size size, bool align_corners,
                           const std::vector<SizeStep>& steps, int threads);
