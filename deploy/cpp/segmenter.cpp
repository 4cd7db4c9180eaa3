#include "segmenter.hpp"

#include <chrono>
#include <memory>
#include <opencv2/imgproc.hpp>
#include <openvino/openvino.hpp>

#include "errors.hpp"
#include "upsample.hpp"

namespace {

constexpr size_t kMostPixels = 1 << 26;  // a network takes hundreds of bytes a pixel
// OpenVINO keeps a plan of each layer for each size; as many as by default would fill a gigabyte.
constexpr const char* kPlans = "128";

ov::InferRequest load(const Deployment& deployment, const std::string& precision, int threads) {
    static ov::Core core;
    const auto offered = core.get_property("CPU", ov::device::capabilities);
    auto has = [&](const std::string& name) {
        return std::find(offered.begin(), offered.end(), name) != offered.end();
    };
    if ((precision == "bf16" && !has("BF16")) || (precision == "fp16" && !has("FP16")))
        fail("according to OpenVINO this CPU does not compute in ", precision, "; use fp32 or int8");
    // The layers of an int8 graph that are not quantised are computed in bf16 where the CPU has it.
    const bool half = precision == "bf16" || (precision == "int8" && has("BF16"));
    const ov::AnyMap settings = {{"INFERENCE_PRECISION_HINT", half                  ? "bf16"
                                                              : precision == "fp16" ? "f16"
                                                                                    : "f32"},
                                 {"PERFORMANCE_HINT", "LATENCY"},
                                 {"NUM_STREAMS", "1"},
                                 {"INFERENCE_NUM_THREADS", std::to_string(threads)},
                                 {"CPU_RUNTIME_CACHE_CAPACITY", kPlans}};
    try {
        return core.compile_model(deployment.graph.string(), "CPU", settings).create_infer_request();
    } catch (const ov::Exception& error) {
        fail("OpenVINO cannot load ", deployment.graph.string(), ": ", error.what());
    }
}

struct Prepared {
    cv::Mat image;  // uint8 BGR for a graph that takes frames, else float32 RGB
    std::vector<SizeStep> steps;
};

Prepared prepare(const cv::Mat& frame, const Deployment& deployment) {
    Prepared prepared{frame, {}};
    if (!deployment.takes_frames) {
        cv::cvtColor(frame, prepared.image, cv::COLOR_BGR2RGB);
        prepared.image.convertTo(prepared.image, CV_32F);
    }
    for (const Transform& transform : deployment.transforms) {
        const cv::Size before = prepared.image.size();
        prepared.image = transform.apply(prepared.image);
        if (prepared.image.size() != before) prepared.steps.push_back({transform.pads, before});
    }
    const cv::Size before = prepared.image.size();
    const cv::Size fixed(deployment.width ? deployment.width : before.width,
                         deployment.height ? deployment.height : before.height);
    if (fixed != before) {
        prepared.steps.push_back({false, before});
        cv::Mat resized;
        cv::resize(prepared.image, resized, fixed, 0, 0, cv::INTER_LINEAR);
        prepared.image = resized;
    }
    if (prepared.image.total() > kMostPixels)
        fail("an image of ", prepared.image.cols, "x", prepared.image.rows, " is too large for a network, which takes ",
             kMostPixels, " pixels at most; export with --input_size, or with a Resize in the config's val_dataset");
    if (!prepared.image.isContinuous()) prepared.image = prepared.image.clone();
    return prepared;
}

// Return the graph's input: a batch that is filled up with copies of the image.
ov::Tensor input_of(const cv::Mat& image, const Deployment& deployment) {
    const size_t batch = deployment.batch ? deployment.batch : 1, height = image.rows, width = image.cols;
    if (deployment.takes_frames) {
        if (batch == 1) return {ov::element::u8, {1, height, width, 3}, image.data};
        ov::Tensor tensor(ov::element::u8, {batch, height, width, 3});
        for (size_t i = 0; i < batch; ++i)
            std::copy_n(image.data, 3 * image.total(), tensor.data<uint8_t>() + i * 3 * image.total());
        return tensor;
    }
    ov::Tensor tensor(ov::element::f32, {batch, 3, height, width});
    for (size_t i = 0; i < 3 * batch; ++i) {
        cv::Mat plane(image.size(), CV_32F, tensor.data<float>() + i * image.total());
        cv::extractChannel(image, plane, int(i % 3));
    }
    return tensor;
}

// Bring one plane of the network's output back to the frame's size by undoing the steps, the last first.
cv::Mat restore(cv::Mat plane, const std::vector<SizeStep>& steps, int interpolation) {
    for (auto step = steps.rbegin(); step != steps.rend(); ++step) {
        cv::Mat result;
        if (step->pads)
            result = plane(cv::Rect({}, step->before)).clone();
        else
            cv::resize(plane, result, step->before, 0, 0, interpolation);
        plane = result;
    }
    return plane;
}

cv::Mat labels_of_graph(const ov::Tensor& output, const Prepared& prepared, int num_classes) {
    const ov::element::Type type = output.get_element_type();
    cv::Mat labels(prepared.image.size(), CV_8UC1);
    for (size_t i = 0; i < labels.total(); ++i)
        labels.data[i] = uint8_t(type == ov::element::u8    ? output.data<const uint8_t>()[i]
                                 : type == ov::element::i32 ? output.data<const int32_t>()[i]
                                                            : output.data<const int64_t>()[i]);
    double largest = 0;
    cv::minMaxLoc(labels, nullptr, &largest);
    if (num_classes && largest >= num_classes)
        fail("the graph returns the label ", largest, ", but deploy.yaml describes ", num_classes,
             " classes; are they from one export?");
    return restore(labels, prepared.steps, cv::INTER_NEAREST_EXACT);
}

// Bring logits or probabilities to the frame's size, one class at a time, and take the first largest.
cv::Mat best_class(const float* values, int classes, const Prepared& prepared, cv::Size size) {
    cv::Mat best(size, CV_32F, cv::Scalar(-std::numeric_limits<float>::infinity())), labels(size, CV_8U, cv::Scalar(0));
    for (int c = 0; c < classes; ++c) {
        const cv::Mat plane(prepared.image.size(), CV_32F, const_cast<float*>(values) + c * prepared.image.total());
        const cv::Mat whole = restore(plane, prepared.steps, cv::INTER_LINEAR);
        labels.setTo(c, whole > best);
        cv::max(best, whole, best);
    }
    return labels;
}

cv::Mat finish(const ov::Tensor& output, const Prepared& prepared, cv::Size size, const Deployment& deployment,
               int threads) {
    const std::string& op = deployment.output_op;
    const ov::Shape shape = output.get_shape();
    const ov::element::Type type = output.get_element_type();
    const bool gives_labels = op == "argmax" || op == "labels";
    const size_t batch = deployment.batch ? deployment.batch : 1, height = prepared.image.rows,
                 width = prepared.image.cols;
    bool fits = shape.size() == (gives_labels ? 3 : 4) && shape[0] == batch;
    if (gives_labels)
        fits = fits && shape == ov::Shape{batch, height, width} &&
               (type == ov::element::u8 || type == ov::element::i32 || type == ov::element::i64);
    else
        fits = fits && type == ov::element::f32 &&
               (!deployment.num_classes || shape[1] == size_t(deployment.num_classes)) && shape[1] <= 256 &&
               (op == "coarse" || (shape[2] == height && shape[3] == width));
    if (!fits)
        fail("the graph returns ", type, " ", shape, " for an image of ", width, "x", height,
             ", but deploy.yaml describes the ", op, " output of ", deployment.num_classes,
             " classes; are they from one export?");
    if (gives_labels) return labels_of_graph(output, prepared, deployment.num_classes);
    const float* values = output.data<const float>();
    if (op != "coarse") return best_class(values, int(shape[1]), prepared, size);
    return labels_from_logits(values, int(shape[1]), {int(shape[3]), int(shape[2])}, prepared.image.size(),
                              deployment.align_corners, prepared.steps, threads);
}

}  // namespace

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

std::function<cv::Mat(const cv::Mat&, Seconds&)> open_segmenter(const Deployment& deployment,
                                                                const std::string& precision, int threads) {
    auto request = std::make_shared<ov::InferRequest>(load(deployment, precision, threads));
    auto label = [=](const cv::Mat& frame, Seconds& seconds) {
        const double start = now();
        const Prepared prepared = prepare(frame, deployment);
        const double prepared_at = now();
        try {
            request->set_input_tensor(input_of(prepared.image, deployment));
            request->infer();
        } catch (const ov::Exception& error) {
            fail("the graph fails on an image of ", prepared.image.cols, "x", prepared.image.rows, ": ", error.what());
        }
        const double inferred_at = now();
        const cv::Mat labels = finish(request->get_output_tensor(), prepared, frame.size(), deployment, threads);
        seconds.preprocess += prepared_at - start;
        seconds.network += inferred_at - prepared_at;
        seconds.labels += now() - inferred_at;
        return labels;
    };
    if (deployment.height && deployment.width) {  // the first run takes longer
        Seconds unused;
        label(cv::Mat::zeros(deployment.height, deployment.width, CV_8UC3), unused);
    }
    return label;
}
