// Frames in and labels out: images, folders and videos.
#pragma once

#include <atomic>
#include <filesystem>
#include <functional>
#include <opencv2/core.hpp>
#include <optional>
#include <string>

#include "images.hpp"

struct Frame {
    std::string source;          // the file, or the video and the frame's number, for messages
    std::filesystem::path name;  // of the files to write, without a suffix
    cv::Mat image;               // empty where there is an error
    std::string error;           // why the frame cannot be read
};

struct Source {
    std::function<std::optional<Frame>()> next;
    std::string name;  // of the outputs of a video; empty for images
    double fps = 0;    // of a video
    int total = 0;     // the expected number of frames, 0 where it is not known
};

// Open an image, a folder with all images below it, or a video file; throw a UserError for anything else.
Source open_source(const std::filesystem::path& path);

struct Sink {
    std::function<void(const Frame&, const cv::Mat&)> write;
    std::function<void()> close;  // a video appears here, whole
};

// Open the outputs, with the names and formats of deploy/python/infer.py.
Sink open_sink(const Source& source, const std::filesystem::path& folder, bool labels, bool overlays,
               const Palette& colours);
