// Segmentation with an exported network: a frame goes in, a label map comes out.
#pragma once

#include <functional>
#include <opencv2/core.hpp>
#include <string>

#include "deployment.hpp"

// Seconds by stage, added over the frames.
struct Seconds {
    double read = 0, preprocess = 0, network = 0, labels = 0, write = 0;
};

// Load the graph into OpenVINO. The function that is returned labels a frame, uint8 BGR: the class of each pixel, uint8
// at the frame's size. It throws a UserError where the graph fails or is not the one that deploy.yaml describes.
std::function<cv::Mat(const cv::Mat&, Seconds&)> open_segmenter(const Deployment& deployment,
                                                                const std::string& precision, int threads);

// Seconds since some time in the past.
double now();
