#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <future>
#include <iostream>
#include <map>
#include <opencv2/core/utils/logger.hpp>
#include <thread>

#include "deployment.hpp"
#include "errors.hpp"
#include "media.hpp"
#include "segmenter.hpp"

namespace {

const char* const kUsage =
    "usage: paddle_rt_infer --config EXPORT --image_path PATH [flags]\n"
    "Label images or a video with a segmentation network that tools/export.py wrote, through OpenVINO on the CPU.\n\n"
    "  --config PATH        deploy.yaml of the export, or its folder\n"
    "  --image_path PATH    an image, a folder with all images below it, or a video file\n"
    "  --save_dir DIR       folder for what is written, by default ./output\n"
    "  --save KIND [KIND]   labels: an indexed PNG for each frame; overlay: a JPEG for an image, an MP4 for a video;\n"
    "                       by default both, but for a video the overlay alone\n"
    "  --frames N           number of frames to read, by default all\n"
    "  --precision NAME     fp32 (the default), bf16, fp16 or int8\n"
    "  --threads N          CPU threads, by default one for each core\n\n"
    "Exit codes: 0, 1 for a fault in the input, 2 for wrong flags, 130 for Ctrl-C.\n";

constexpr int kInterrupted = 130;  // the exit code after Ctrl-C
volatile std::sig_atomic_t interrupted = 0;

void interrupt_once(int) {
    interrupted = 1;
    std::signal(SIGINT, SIG_DFL);
}

struct Arguments {
    std::string config, image_path, save_dir = "./output", precision = "fp32";
    bool labels = false, overlay = false;
    int frames = 0, threads = int(std::max(1u, std::thread::hardware_concurrency()));
};

template <class... Parts>
[[noreturn]] void wrong_flags(const Parts&... parts) {
    std::ostringstream message;
    (message << ... << parts);
    throw UserError(message.str() + "; --help lists the flags", 2);
}

int count(const std::string& flag, const std::string& text, int most) {
    const bool digits = !text.empty() && text.size() < 10 && text.find_first_not_of("0123456789") == std::string::npos;
    if (!digits || std::stoi(text) < 1 || std::stoi(text) > most)
        wrong_flags(flag, " must be a whole number from 1 to ", most, ", got '", text, "'");
    return std::stoi(text);
}

// Return the values behind each flag, of which those of `save` are up to two.
std::map<std::string, std::vector<std::string>> split_flags(const std::vector<std::string>& words) {
    static const std::vector<std::string> known = {"--config", "--image_path", "--save_dir", "--save",
                                                   "--frames", "--precision",  "--threads"};
    std::map<std::string, std::vector<std::string>> flags;
    for (size_t i = 0; i < words.size();) {
        const std::string flag = words[i++];
        if (std::find(known.begin(), known.end(), flag) == known.end()) wrong_flags("unknown flag '", flag, "'");
        if (flags.count(flag)) wrong_flags(flag, " is given twice");
        std::vector<std::string>& values = flags[flag];
        while (i < words.size() && words[i].rfind("--", 0) != 0) values.push_back(words[i++]);
        if (values.empty() || (values.size() > 1 && flag != "--save"))
            wrong_flags(flag, " takes a value, got ", values.size());
        if (values[0].empty()) wrong_flags(flag, " is empty");
    }
    return flags;
}

Arguments parse(const std::vector<std::string>& words) {
    auto flags = split_flags(words);
    Arguments arguments;
    for (const char* flag : {"--config", "--image_path"})
        if (!flags.count(flag)) wrong_flags(flag, " is missing");
    arguments.config = flags["--config"][0];
    arguments.image_path = flags["--image_path"][0];
    if (flags.count("--save_dir")) arguments.save_dir = flags["--save_dir"][0];
    if (flags.count("--frames")) arguments.frames = count("--frames", flags["--frames"][0], 1'000'000'000);
    if (flags.count("--threads")) arguments.threads = count("--threads", flags["--threads"][0], 1024);
    for (const std::string& kind : flags["--save"]) {
        if (kind != "labels" && kind != "overlay") wrong_flags("--save takes labels and overlay, got '", kind, "'");
        (kind == "labels" ? arguments.labels : arguments.overlay) = true;
    }
    if (flags.count("--precision")) {
        arguments.precision = flags["--precision"][0];
        const std::vector<std::string> valid = {"fp32", "bf16", "fp16", "int8"};
        if (std::find(valid.begin(), valid.end(), arguments.precision) == valid.end())
            wrong_flags("--precision must be fp32, bf16, fp16 or int8, got '", arguments.precision, "'");
    }
    return arguments;
}

struct Report {
    int labelled = 0;
    std::vector<std::string> failures;
    Seconds seconds;
};

// Label frames in this thread while one thread reads the next frame and one writes the last one.
Report label_frames(const std::function<cv::Mat(const cv::Mat&, Seconds&)>& segment, Source& source, Sink& sink,
                    int limit) {
    Report report;
    std::vector<std::string> unwritten;  // filled by the thread that writes
    auto read = [&]() -> std::optional<Frame> {
        const double start = now();
        std::optional<Frame> frame;
        if (!interrupted) frame = source.next();
        report.seconds.read += now() - start;
        return frame;
    };
    auto write = [&](const Frame& frame, const cv::Mat& labels) {
        const double start = now();
        try {
            sink.write(frame, labels);
        } catch (const UserError& error) {
            if (source.fps) throw;  // its frames go into one file
            unwritten.push_back(frame.source + ": " + error.what());
        }
        report.seconds.write += now() - start;
    };
    int number = 0;
    const double start = now();
    std::future<std::optional<Frame>> coming = std::async(std::launch::async, read);
    std::future<void> going;
    while (std::optional<Frame> frame = coming.get()) {
        ++number;
        if (limit == 0 || number < limit) coming = std::async(std::launch::async, read);
        cv::Mat labels;
        if (frame->error.empty()) {
            try {
                labels = segment(frame->image, report.seconds);
            } catch (const UserError& error) {
                frame->error = frame->source + ": " + error.what();
            }
        }
        if (going.valid()) going.get();
        if (frame->error.empty()) {
            ++report.labelled;
            going = std::async(std::launch::async, write, *frame, labels);
        } else {
            report.failures.push_back(frame->error);
        }
        if (isatty(2))
            std::fprintf(stderr, "\r%d of %s frames, %.1f per second ", number,
                         source.total ? std::to_string(source.total).c_str() : "?", number / (now() - start));
        if (!coming.valid()) break;
    }
    if (going.valid()) going.get();
    if (isatty(2)) std::fprintf(stderr, "\n");
    sink.close();
    report.failures.insert(report.failures.end(), unwritten.begin(), unwritten.end());
    return report;
}

void print(const Report& report, double seconds, const std::string& save_dir) {
    std::printf("%d frames labelled", report.labelled);
    if (report.labelled) {
        std::printf(
            " in %.1f s, %.1f frames per second; ms a frame, where reading and writing run in parallel with the rest:",
            seconds, report.labelled / seconds);
        const std::vector<std::pair<const char*, double>> stages = {{" read", report.seconds.read},
                                                                    {", preprocess", report.seconds.preprocess},
                                                                    {", network", report.seconds.network},
                                                                    {", labels", report.seconds.labels},
                                                                    {", write", report.seconds.write}};
        for (const auto& [name, total] : stages) std::printf("%s %.1f", name, 1000 * total / report.labelled);
    }
    std::printf("\nresults are in %s\n", save_dir.c_str());
    std::fflush(stdout);
}

void run(const Arguments& arguments) {
    const Deployment deployment = load_deployment(arguments.config, arguments.precision);
    Source source = open_source(arguments.image_path);
    const bool both = !arguments.labels && !arguments.overlay;
    Sink sink = open_sink(
        source, arguments.save_dir, arguments.labels || (both && !source.fps), arguments.overlay || both,
        deployment.colours.empty() ? palette(deployment.dataset_type, deployment.num_classes) : deployment.colours);
    if (arguments.frames) source.total = source.total ? std::min(source.total, arguments.frames) : arguments.frames;
    const auto segment = open_segmenter(deployment, arguments.precision, arguments.threads);
    std::signal(SIGINT, interrupt_once);
    const double start = now();
    const Report report = label_frames(segment, source, sink, arguments.frames);
    print(report, now() - start, arguments.save_dir);
    std::string failures;
    for (size_t i = 0; i < std::min<size_t>(report.failures.size(), 10); ++i)
        failures += (i ? "; " : "") + report.failures[i];
    if (report.failures.size() > 10) failures += "; and " + std::to_string(report.failures.size() - 10) + " more";
    if (interrupted) {
        if (!failures.empty()) std::cerr << "not labelled: " << failures << "\n";
        throw UserError("interrupted: what was saved before is whole", kInterrupted);
    }
    if (!failures.empty()) fail("not labelled: ", failures);
}

// Write a message on one line.
int end(const std::string& message, int code) {
    std::string line;
    for (const char letter : message)
        if (!std::isspace(uint8_t(letter)))
            line += letter;
        else if (!line.empty() && line.back() != ' ')
            line += ' ';
    std::cerr << (code == kInterrupted ? "" : "error: ") << line << "\n";
    return code;
}

}  // namespace

int main(int number, char** words) {
    setenv("OPENCV_FFMPEG_LOGLEVEL", "-8", 0);  // our own line says what is wrong with a video
    cv::utils::logging::setLogLevel(cv::utils::logging::LOG_LEVEL_SILENT);
    const std::vector<std::string> flags(words + 1, words + number);
    if (std::find(flags.begin(), flags.end(), "--help") != flags.end()) {
        std::cout << kUsage;
        return 0;
    }
    try {
        const Arguments arguments = parse(flags);
        cv::setNumThreads(arguments.threads);
        run(arguments);
        return 0;
    } catch (const UserError& error) {
        return end(error.what(), error.exit_code);
    } catch (const std::filesystem::filesystem_error& error) {
        return end(error.code().message() + ": " + error.path1().string(), 1);
    } catch (const std::bad_alloc&) {
        return end("out of memory", 1);
    } catch (const std::exception& error) {  // OpenCV's and OpenVINO's for what nobody foresaw
        return end(error.what(), 1);
    }
}
