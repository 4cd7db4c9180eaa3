// Images on disk: read with every fault named; labels written as indexed PNG, and drawn over the image.
#pragma once

#include <array>
#include <filesystem>
#include <opencv2/core.hpp>
#include <string>
#include <vector>

using Palette = std::vector<std::array<uint8_t, 3>>;  // RGB of each class

// Return the colours of a data set's classes, or those of Pascal VOC from its second on where it has none.
Palette palette(const std::string& dataset_type, int num_classes);

// Whether the suffix of a file is that of an image.
bool is_image(const std::filesystem::path& path);

// Read an image of 8 bits a channel as BGR; throw a UserError for anything else, a damaged one or one that is cut off.
cv::Mat read_image(const std::filesystem::path& path);

// Write labels as an indexed PNG: its pixels are the class numbers, and viewers show the colours.
void write_label(const std::filesystem::path& path, const cv::Mat& labels, const Palette& colours);

// Blend an image with the colours of its labels; labels beyond the palette keep the image's colour.
cv::Mat overlay(const cv::Mat& image, const cv::Mat& labels, const Palette& colours);
