#include "media.hpp"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>
#include <opencv2/videoio.hpp>
#include <set>

#include "errors.hpp"
#include "files.hpp"

namespace fs = std::filesystem;

namespace {

const std::set<std::string> kVideos = {".mp4", ".m4v",  ".mov", ".avi", ".mkv", ".webm",
                                       ".mpg", ".mpeg", ".ts",  ".wmv", ".flv", ".3gp"};
const std::set<std::string> kCounted = {".mp4", ".m4v", ".mov", ".avi"};  // their headers hold the number of frames
constexpr double kUsualRate = 25, kLeastRate = 0.01, kMostRate = 240;
constexpr size_t kMostVideo = size_t(1) << 50;

std::string lower(std::string text) {
    std::transform(text.begin(), text.end(), text.begin(), [](unsigned char letter) { return std::tolower(letter); });
    return text;
}

std::string padded(int number) {
    const std::string digits = std::to_string(number);
    return std::string(digits.size() < 6 ? 6 - digits.size() : 0, '0') + digits;
}

// All images below a folder but for hidden ones, sorted by their paths.
std::vector<fs::path> images_below(const fs::path& folder) {
    std::vector<fs::path> files;
    for (auto entry = fs::recursive_directory_iterator(folder); entry != fs::recursive_directory_iterator(); ++entry) {
        const bool hidden = entry->path().filename().string()[0] == '.';
        if (entry->is_directory() && hidden) entry.disable_recursion_pending();
        if (!entry->is_directory() && !hidden && is_image(entry->path())) files.push_back(entry->path());
    }
    std::sort(files.begin(), files.end(), [](const fs::path& a, const fs::path& b) { return a.string() < b.string(); });
    if (files.empty()) fail("no images in folder ", folder.string());
    return files;
}

// A name for the outputs of each image, relative to the root and without its suffix, which it keeps where names
// collide.
std::vector<fs::path> output_names(const std::vector<fs::path>& files, const fs::path& root) {
    std::vector<fs::path> names;
    std::set<fs::path> taken;
    for (const fs::path& file : files) {
        const fs::path relative = file.lexically_relative(root);
        fs::path name = fs::path(relative).replace_extension();
        if (taken.count(name)) name = relative;
        while (taken.count(name)) name += "_";
        taken.insert(name);
        names.push_back(name);
    }
    return names;
}

Source images_source(const std::vector<fs::path>& files, const fs::path& root) {
    Source source;
    source.total = int(files.size());
    source.next = [files, names = output_names(files, root), i = size_t(0)]() mutable -> std::optional<Frame> {
        if (i == files.size()) return std::nullopt;
        Frame frame{files[i].string(), names[i], {}, ""};
        ++i;
        try {
            frame.image = read_image(frame.source);
        } catch (const UserError& error) {
            frame.error = error.what();
        }
        return frame;
    };
    return source;
}

struct Video {
    cv::VideoCapture capture;
    cv::Size size;
    int index = 0, decoded = 0;
    bool ended = false;
};

// Read the next frame of a video, in the size of the first one; after the last one tell which are missing.
std::optional<Frame> next_frame(Video& video, const std::string& path, int promised, int slack) {
    if (video.ended) return std::nullopt;
    Frame frame{path + ", frame " + std::to_string(video.index), padded(video.index), {}, ""};
    if (!video.capture.grab()) {
        video.ended = true;
        if (!video.decoded) fail(path, " gives no frame that can be decoded");
        if (video.index >= promised - slack) return std::nullopt;
        frame.error = path + ": its header promises " + std::to_string(promised) + " frames, " +
                      std::to_string(video.index) + " can be decoded; it is damaged, cut off or trimmed";
        return frame;
    }
    ++video.index;
    if (!video.capture.retrieve(frame.image) || frame.image.empty()) {
        frame.error = frame.source + ": it cannot be decoded";
        return frame;
    }
    if (!video.decoded++) video.size = frame.image.size();
    if (frame.image.size() != video.size) {
        const bool shrinks = frame.image.total() > size_t(video.size.area());
        cv::Mat resized;
        cv::resize(frame.image, resized, video.size, 0, 0, shrinks ? cv::INTER_AREA : cv::INTER_LINEAR);
        frame.image = resized;
    }
    return frame;
}

Source video_source(const fs::path& path) {
    check_file(path, "video", kMostVideo);
    auto video = std::make_shared<Video>();
    // FFmpeg takes what stands before a colon for a protocol, unless the path is absolute; OpenCV's other readers take
    // a % for a series of images.
    if (!video->capture.open(fs::absolute(path).string(), cv::CAP_FFMPEG))
        fail("cannot open video ", path.string(), ": it is cut off, damaged, without frames, or not a video");
    Source source;
    source.name = path.stem().string();
    const double rate = video->capture.get(cv::CAP_PROP_FPS), count = video->capture.get(cv::CAP_PROP_FRAME_COUNT);
    source.fps = rate >= kLeastRate && rate <= kMostRate ? rate : kUsualRate;
    source.total = count > 0 && count < 1e9 && rate > 0 && rate <= kMostRate ? int(count) : 0;
    const int slack = kCounted.count(lower(path.extension().string())) ? 0 : 1 + source.total / 20;
    source.next = [video, path = path.string(), total = source.total, slack] {
        return next_frame(*video, path, total, slack);
    };
    return source;
}

void write_jpeg(const fs::path& path, const cv::Mat& image) {
    constexpr int most = 65500;
    if (std::max(image.cols, image.rows) > most)
        fail("cannot write image ", path.string(), " of ", image.cols, "x", image.rows, ": .jpg holds at most ", most,
             " pixels a side");
    std::vector<uchar> data;
    cv::imencode(".jpg", image, data);
    write_whole(path, data.data(), data.size());
}

// A video that is being written: it takes its name when it is closed and whole.
struct VideoFile {
    fs::path path, part;
    double fps;
    cv::VideoWriter writer;
    int count = 0;

    ~VideoFile() {
        writer.release();
        std::error_code ignored;
        fs::remove(part, ignored);
    }
};

void add_frame(VideoFile& video, const cv::Mat& image) {
    cv::Mat even;  // the codec needs even sides, and OpenCV would cut off a row or a column
    cv::copyMakeBorder(image, even, 0, image.rows % 2, 0, image.cols % 2, cv::BORDER_REPLICATE);
    if (!video.count++) {
        fs::create_directories(video.path.parent_path());
        const int code = cv::VideoWriter::fourcc('m', 'p', '4', 'v');
        if (!video.writer.open(fs::absolute(video.part).string(), cv::CAP_FFMPEG, code, video.fps, even.size()))
            fail("cannot write video ", video.path.string(), " of ", even.cols, "x", even.rows,
                 "; --save labels writes images");
    }
    video.writer.write(even);
}

void close_video(VideoFile& video) {
    video.writer.release();
    if (!video.count) return;
    // OpenCV does not report a failure, so the frames are counted.
    cv::VideoCapture written(fs::absolute(video.part).string(), cv::CAP_FFMPEG);
    if (written.get(cv::CAP_PROP_FRAME_COUNT) != video.count)
        fail("video ", video.path.string(), " could not be written completely; is the disk full?");
    fs::rename(video.part, video.path);
}

}  // namespace

Source open_source(const fs::path& path) {
    if (fs::is_directory(path)) return images_source(images_below(path), path);
    if (kVideos.count(lower(path.extension().string()))) return video_source(path);
    check_file(path, "image, folder or video", kMostVideo);
    if (is_image(path)) return images_source({path}, path.parent_path());
    fail(path.string(), " is neither an image nor a video by its suffix, nor a folder");
}

Sink open_sink(const Source& source, const fs::path& folder, bool labels, bool overlays, const Palette& colours) {
    const fs::path label_folder = folder / (source.fps ? source.name : "pseudo_color_prediction");
    std::shared_ptr<VideoFile> video;
    if (source.fps && overlays) {
        video = std::make_shared<VideoFile>();
        video->path = folder / (source.name + "_overlay.mp4");
        video->part = folder / ("." + source.name + "_overlay." + std::to_string(getpid()) + ".part.mp4");
        // MPEG-4 holds the rate as a fraction whose parts have 16 bits; OpenCV takes a power of ten below.
        const double digits = source.fps < 65 ? 1000 : 100;
        video->fps = std::nearbyint(source.fps * digits) / digits;
    }
    auto write = [=](const Frame& frame, const cv::Mat& map) {
        if (labels) write_label(label_folder / (frame.name.string() + ".png"), map, colours);
        if (!overlays) return;
        const cv::Mat drawn = overlay(frame.image, map, colours);
        if (video)
            add_frame(*video, drawn);
        else
            write_jpeg(folder / "added_prediction" / (frame.name.string() + ".jpg"), drawn);
    };
    return {write, [video] {
                if (video) close_video(*video);
            }};
}
