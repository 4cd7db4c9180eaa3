// deploy.yaml: the description of an export, read and checked as paddle_rt/inference/deployment.py does.
#pragma once

#include <array>
#include <filesystem>
#include <functional>
#include <opencv2/core.hpp>
#include <string>
#include <vector>

// A transform of an image: float32 RGB, or uint8 BGR where the graph normalises.
struct Transform {
    bool pads;
    std::function<cv::Mat(const cv::Mat&)> apply;
};

struct Deployment {
    std::filesystem::path graph;        // the ONNX file of the chosen precision
    std::vector<Transform> transforms;  // without the normalisation of a graph that does it itself
    int batch, height, width;           // what the graph takes; 0 for a length that it leaves open
    bool takes_frames;                  // uint8 BGR [N, H, W, 3], else float32 RGB [N, 3, H, W]
    std::string output_op;              // coarse, labels, argmax, softmax or none
    bool align_corners;                 // of the network's last resize, which the output "coarse" leaves out
    int num_classes;                    // 0 where it is not known
    std::string dataset_type;
    std::vector<std::array<uint8_t, 3>> colours;  // RGB of each class; empty where dataset_type decides
};

// Read a deploy.yaml, or the one of a folder, for a precision: fp32, bf16, fp16 or int8.
// Throws a UserError where the file or the graph is missing, damaged, changed or not known to this program.
Deployment load_deployment(const std::filesystem::path& path, const std::string& precision);
