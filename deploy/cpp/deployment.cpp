#include "deployment.hpp"

#include <openssl/evp.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <opencv2/imgproc.hpp>
#include <regex>

#include "errors.hpp"
#include "files.hpp"

namespace fs = std::filesystem;
using Names = std::vector<std::string>;

namespace {

constexpr size_t kMostYaml = 1 << 18, kMostReport = 1 << 24, kMostGraph = size_t(1) << 33;
const Names kKeys = {"task",        "model",       "params",       "onnx",        "mnn",
                     "int8",        "fp16",        "target",       "transforms",  "input_shape",
                     "input_dtype", "output_op",   "output_dtype", "state_shape", "align_corners",
                     "settings",    "num_classes", "dataset_type", "colors",      "class_names"};
const Names kGraphs = {"model", "params", "onnx", "mnn", "int8", "fp16"};
const std::map<std::string, int> kInterpolations = {{"NEAREST", cv::INTER_NEAREST},
                                                    {"LINEAR", cv::INTER_LINEAR},
                                                    {"CUBIC", cv::INTER_CUBIC},
                                                    {"AREA", cv::INTER_AREA},
                                                    {"LANCZOS4", cv::INTER_LANCZOS4}};
const std::map<std::string, int> kInterpolationsOfPaddleClas = {{"nearest", cv::INTER_NEAREST},
                                                                {"bilinear", cv::INTER_LINEAR},
                                                                {"bicubic", cv::INTER_CUBIC},
                                                                {"area", cv::INTER_AREA},
                                                                {"lanczos", cv::INTER_LANCZOS4}};

std::string join(const Names& names) {
    std::string text;
    for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
    return text;
}

// Return a value as messages show it, on one line and cut off where it is long.
std::string shown(const YAML::Node& node) {
    YAML::Emitter text;
    text << YAML::Flow << node;
    const std::string all = text.c_str();
    return all.size() <= 100 ? all : all.substr(0, 80) + "...";
}

// Refuse what is no mapping, or has a key that is not known, or one twice, of which YAML would keep either in silence.
void check_keys(const YAML::Node& node, const std::string& where, const Names& valid) {
    if (!node.IsMap()) fail(where, " must be a mapping, got ", shown(node));
    Names seen;
    for (const auto& entry : node) {
        const std::string key = entry.first.IsScalar() ? entry.first.Scalar() : shown(entry.first);
        if (std::find(valid.begin(), valid.end(), key) == valid.end())
            fail("unknown key '", key, "' in ", where, ". Valid: ", join(valid));
        if (std::find(seen.begin(), seen.end(), key) != seen.end()) fail("the key '", key, "' occurs twice in ", where);
        seen.push_back(key);
    }
}

// A node that is missing gives the default of each of these; a quoted word is a text and neither number nor boolean.
bool is_plain(const YAML::Node& node) { return node.IsScalar() && node.Tag() == "?"; }

std::string text(const YAML::Node& node, const std::string& where, const std::string& missing,
                 const Names& valid = {}) {
    if (!node) return missing;
    if (!node.IsScalar() || (!valid.empty() && std::find(valid.begin(), valid.end(), node.Scalar()) == valid.end()))
        fail(where, " must be ", valid.empty() ? "a name" : "one of " + join(valid), ", got ", shown(node));
    return node.Scalar();
}

bool flag(const YAML::Node& node, const std::string& where) {
    if (!node) return false;
    if (!is_plain(node) || (node.Scalar() != "true" && node.Scalar() != "false"))
        fail(where, " must be true or false, got ", shown(node));
    return node.Scalar() == "true";
}

int whole(const YAML::Node& node, const std::string& where, int missing, int most = std::numeric_limits<int>::max()) {
    if (!node || node.IsNull()) return missing;
    const bool digits = is_plain(node) && std::regex_match(node.Scalar(), std::regex("[1-9][0-9]{0,9}"));
    if (!digits || std::stoll(node.Scalar()) > most)
        fail(where, " must be a whole number from 1 to ", most, ", got ", shown(node));
    return std::stoi(node.Scalar());
}

double number(const YAML::Node& node, const std::string& where) {
    static const std::regex decimal("[-+]?([0-9]+\\.?[0-9]*|\\.[0-9]+)([eE][-+]?[0-9]+)?");
    const double value = is_plain(node) && std::regex_match(node.Scalar(), decimal) ? std::stod(node.Scalar()) : NAN;
    if (!std::isfinite(value)) fail(where, " must be a finite number, got ", shown(node));
    return value;
}

// Read [width, height], or also one number for both.
cv::Size size_of(const YAML::Node& node, const std::string& where, cv::Size missing, bool takes_one = false) {
    constexpr int most = (1 << 15) - 1;
    if (!node) return missing;
    if (takes_one && node.IsScalar()) return {whole(node, where, 0, most), whole(node, where, 0, most)};
    if (!node.IsSequence() || node.size() != 2) fail(where, " must be [width, height], got ", shown(node));
    const cv::Size size(whole(node[0], where, 0, most), whole(node[1], where, 0, most));
    if (size.empty()) fail(where, " must be [width, height], got ", shown(node));
    return size;
}

int interpolation(const YAML::Node& node, const std::string& where, const std::map<std::string, int>& known,
                  const std::string& missing) {
    Names names;
    for (const auto& entry : known) names.push_back(entry.first);
    return known.at(text(node, where, missing, names));
}

cv::Mat resized(const cv::Mat& image, cv::Size size, int method) {
    cv::Mat result;
    cv::resize(image, result, size, 0, 0, method);
    return result;
}

// Python's round, which rounds a half to the even number.
int scaled(int length, double scale) { return std::max(int(std::nearbyint(length * scale)), 1); }

cv::Size scaled(const cv::Mat& image, double scale) { return {scaled(image.cols, scale), scaled(image.rows, scale)}; }

// Each of the following makes a transform of a section of the list; `where` begins its messages.

Transform make_resize(const YAML::Node& node, const std::string& where) {
    check_keys(node, where, {"type", "target_size", "keep_ratio", "size_divisor", "interp"});
    const cv::Size target = size_of(node["target_size"], "target_size of " + where, {512, 512});
    const bool keeps = flag(node["keep_ratio"], "keep_ratio of " + where);
    const int divisor = whole(node["size_divisor"], "size_divisor of " + where, 1);
    const int method = interpolation(node["interp"], "interp of " + where, kInterpolations, "LINEAR");
    return {false, [=](const cv::Mat& image) {
                cv::Size size = target;
                if (keeps) {
                    const auto [low, high] = std::minmax(target.width, target.height);
                    const auto [short_side, long_side] = std::minmax(image.cols, image.rows);
                    size = scaled(image, std::min(double(high) / long_side, double(low) / short_side));
                }
                for (int* length : {&size.width, &size.height})
                    *length = int(std::ceil(double(*length) / divisor)) * divisor;
                return resized(image, size, method);
            }};
}

Transform make_resize_by_long(const YAML::Node& node, const std::string& where) {
    check_keys(node, where, {"type", "long_size"});
    const int target = whole(node["long_size"], "long_size of " + where, 0);
    if (!target) fail(where, " needs long_size");
    return {false, [=](const cv::Mat& image) {
                return resized(image, scaled(image, double(target) / std::max(image.cols, image.rows)),
                               cv::INTER_LINEAR);
            }};
}

Transform make_resize_by_short(const YAML::Node& node, const std::string& where) {
    check_keys(node, where, {"type", "short_size", "max_size"});
    const int target = whole(node["short_size"], "short_size of " + where, 0);
    const double most = node["max_size"] ? number(node["max_size"], "max_size of " + where) : 1e10;
    if (!target) fail(where, " needs short_size");
    if (most < 1) fail("max_size of ", where, " must be a number of at least 1, got ", most);
    return {false, [=](const cv::Mat& image) {
                const auto [short_side, long_side] = std::minmax(image.cols, image.rows);
                const bool fits = double(target) / short_side * long_side <= most;
                const double side = fits ? target : std::trunc(most / long_side * short_side);
                return resized(image, scaled(image, side / short_side), cv::INTER_LINEAR);
            }};
}

Transform make_padding(const YAML::Node& node, const std::string& where) {
    check_keys(node, where, {"type", "target_size", "im_padding_value", "label_padding_value"});
    const cv::Size target = size_of(node["target_size"], "target_size of " + where, {});
    if (target.empty()) fail(where, " needs target_size");
    const double value =
        node["im_padding_value"] ? number(node["im_padding_value"], "im_padding_value of " + where) : 127.5;
    return {true, [=](const cv::Mat& image) {
                const int right = target.width - image.cols, bottom = target.height - image.rows;
                if (right < 0 || bottom < 0)
                    fail("Padding to ", target.width, "x", target.height, ": the image is larger, ", image.cols, "x",
                         image.rows);
                cv::Mat result;
                cv::copyMakeBorder(image, result, 0, bottom, 0, right, cv::BORDER_CONSTANT, cv::Scalar::all(value));
                return result;
            }};
}

Transform make_resize_image(const YAML::Node& node, const std::string& where) {
    check_keys(node, where, {"type", "resize_short", "size", "interpolation"});
    const int target = whole(node["resize_short"], "resize_short of " + where, 0);
    const cv::Size size = node["size"].IsDefined() && !node["size"].IsNull()
                              ? size_of(node["size"], "size of " + where, {}, true)
                              : cv::Size();
    if (bool(target) != size.empty()) fail(where, " takes resize_short or size, and one of them only");
    const int method =
        interpolation(node["interpolation"], "interpolation of " + where, kInterpolationsOfPaddleClas, "bilinear");
    return {false, [=](const cv::Mat& image) {
                const double scale = double(target) / std::min(image.cols, image.rows);
                return resized(image, size.empty() ? scaled(image, scale) : size, method);
            }};
}

struct Normalisation {
    std::vector<double> mean, std;
};

Normalisation read_normalisation(const YAML::Node& node, const std::string& where, const Normalisation& missing) {
    check_keys(node, where, {"type", "mean", "std"});
    Normalisation result = missing;
    for (const auto& [key, values] : {std::pair("mean", &result.mean), std::pair("std", &result.std)}) {
        const YAML::Node list = node[key];
        if (!list) continue;
        values->clear();
        if (list.IsSequence())
            for (const auto& value : list) values->push_back(number(value, std::string(key) + " of " + where));
        if (values->size() != 1 && values->size() != 3)
            fail(key, " of ", where, " must be a list of 1 or 3 finite numbers, got ", shown(list));
    }
    if (std::count(result.std.begin(), result.std.end(), 0.0)) fail("std of ", where, " must not hold 0");
    return result;
}

// Divide by 255, subtract and divide, the latter two in double precision rounded to single, as PaddleSeg does.
Transform make_normalize(const Normalisation& values) {
    return {false, [=](const cv::Mat& image) {
                cv::Mat result(image.size(), CV_32FC3);
                for (int y = 0; y < image.rows; ++y) {
                    const float* from = image.ptr<float>(y);
                    float* to = result.ptr<float>(y);
                    for (int i = 0; i < 3 * image.cols; ++i) {
                        const float centred =
                            float(double(from[i] / 255.0f) - values.mean[values.mean.size() == 1 ? 0 : i % 3]);
                        to[i] = float(double(centred) / values.std[values.std.size() == 1 ? 0 : i % 3]);
                    }
                }
                return result;
            }};
}

// Fill in the transforms; return the normalisation that a graph which takes frames does itself.
Normalisation read_transforms(const YAML::Node& list, Deployment& deployment) {
    static const std::map<std::string, Transform (*)(const YAML::Node&, const std::string&)> makers = {
        {"Resize", make_resize},
        {"ResizeByLong", make_resize_by_long},
        {"ResizeByShort", make_resize_by_short},
        {"Padding", make_padding},
        {"ResizeImage", make_resize_image}};
    static const std::map<std::string, Normalisation> normalisations = {
        {"Normalize", {{0.5}, {0.5}}}, {"NormalizeImage", {{0.485, 0.456, 0.406}, {0.229, 0.224, 0.225}}}};
    Normalisation found = {{0.0}, {1 / 255.0}};  // this leaves values from 0 to 255 unchanged
    if (!list.IsSequence()) fail("transforms must be a list, got ", shown(list));
    for (size_t i = 0; i < list.size(); ++i) {
        const YAML::Node item = list[i];
        if (!item.IsMap() || !item["type"] || !item["type"].IsScalar())
            fail("a transform is a mapping with a 'type', got ", shown(item));
        const std::string type = item["type"].Scalar(), where = "transform " + type;
        if (const auto normal = normalisations.find(type); normal != normalisations.end()) {
            found = read_normalisation(item, where, normal->second);
            if (!deployment.takes_frames)
                deployment.transforms.push_back(make_normalize(found));
            else if (i + 1 != list.size())
                fail("a graph that takes frames normalises last and once, but ", type, " is transform ", i + 1, " of ",
                     list.size());
        } else if (const auto maker = makers.find(type); maker != makers.end()) {
            deployment.transforms.push_back(maker->second(item, where));
        } else {
            fail("unknown transform '", type,
                 "'. Valid: Normalize, NormalizeImage, Padding, Resize, ResizeByLong, ResizeByShort, ResizeImage");
        }
    }
    return found;
}

// Read the colours of the classes, each three numbers from 0 to 255.
std::vector<std::array<uint8_t, 3>> colours_of(const YAML::Node& list, int num_classes) {
    std::vector<std::array<uint8_t, 3>> colours;
    if (!list) return colours;
    for (const auto& colour : list) {
        if (!colour.IsSequence() || colour.size() != 3) break;
        colours.emplace_back();
        for (int i = 0; i < 3; ++i) {
            const double value = number(colour[i], "colors");
            if (value < 0 || value > 255 || value != std::floor(value))
                fail("colors must be from 0 to 255, got ", value);
            colours.back()[i] = uint8_t(value);
        }
    }
    if (colours.size() != list.size() || int(colours.size()) != num_classes)
        fail("colors must be a list of num_classes = ", num_classes, " colours, each three numbers from 0 to 255");
    return colours;
}

// Return the path of a file of the export, which must lie in its folder.
fs::path file_of(const fs::path& folder, const std::string& name) {
    const fs::path path = folder / name;
    const auto parts = fs::path(name);
    const bool leaves = parts.is_absolute() || std::find(parts.begin(), parts.end(), "..") != parts.end();
    if (leaves || fs::weakly_canonical(path).string().rfind(fs::canonical(folder).string() + "/", 0) != 0)
        fail("'", name, "' leads out of the folder ", folder.string(), "; an export is one folder");
    return path;
}

std::string sha256(const std::string& data) {
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned length = 0;
    if (!EVP_Digest(data.data(), data.size(), digest, &length, EVP_sha256(), nullptr))
        fail("OpenSSL computes no SHA-256");
    std::string text;
    for (unsigned i = 0; i < length; ++i) {
        text += "0123456789abcdef"[digest[i] >> 4];
        text += "0123456789abcdef"[digest[i] & 15];
    }
    return text;
}

// Return a value such that equal ones give equal texts, however they are written.
std::string canonical(const YAML::Node& node) {
    if (!node.IsDefined() || node.IsNull()) return "null";
    std::ostringstream out;
    out.precision(17);
    if (node.IsScalar()) {
        char* end = nullptr;
        const double value = std::strtod(node.Scalar().c_str(), &end);
        if (node.Scalar().empty() || *end)
            out << node.Scalar();
        else
            out << value;
    }
    for (const auto& entry : node) {  // no entries in a scalar
        if (node.IsMap())
            out << canonical(entry.first) << ": " << canonical(entry.second) << ", ";
        else
            out << canonical(entry) << ", ";
    }
    return node.IsScalar() ? out.str() : "[" + out.str() + "]";
}

// Refuse a graph that is not byte for byte the one that was verified, and a deploy.yaml that contradicts what was.
void check_verified(const fs::path& folder, const YAML::Node& values, const std::string& graph,
                    const Normalisation& normalisation) {
    const fs::path path = file_of(folder, "verification.json");
    YAML::Node report;
    try {
        report = YAML::Load(read_file(path, "verification.json of the export", kMostReport));  // JSON is YAML
    } catch (const YAML::Exception& error) {
        fail(path.string(), " is damaged (", error.msg, "); export it again");
    }
    if (!report.IsMap() || !report["files"] || !report["files"].IsMap())
        fail(path.string(), " does not list the files of this export; export it again");
    Names others;  // the graphs that are not used here; whatever else is listed holds numbers of an ONNX graph
    for (const std::string& key : kGraphs)
        if (values[key] && text(values[key], key, "") != graph) others.push_back(values[key].Scalar());
    bool listed = false;
    for (const auto& entry : report["files"]) {
        const std::string name = entry.first.Scalar();
        listed = listed || name == graph;
        if (std::find(others.begin(), others.end(), name) != others.end()) continue;
        const fs::path file = file_of(folder, name);
        if (sha256(read_file(file, "file of the export", kMostGraph)) != entry.second.Scalar())
            fail(file.string(),
                 " is not the graph that verification.json describes: it is damaged, or from another export; export it "
                 "again");
    }
    if (!listed)
        fail("verification.json does not list ", (folder / graph).string(), ", a file of this export; export it again");
    YAML::Node facts;
    facts["task"] = text(values["task"], "task", "segmentation");
    facts["target"] = text(values["target"], "target", "cpu");
    facts["input_dtype"] = text(values["input_dtype"], "input_dtype", "float32");
    facts["align_corners"] = flag(values["align_corners"], "align_corners") ? "true" : "false";
    for (const char* key : {"input_shape", "output_op", "state_shape"})
        facts[key] = values[key] ? values[key] : YAML::Node();
    if (facts["input_dtype"].Scalar() == "uint8") {
        facts["normalize"]["mean"] = normalisation.mean;
        facts["normalize"]["std"] = normalisation.std;
    }
    for (const auto& fact : facts) {
        const YAML::Node verified = report[fact.first.Scalar()];
        if (verified.IsDefined() && canonical(verified) != canonical(fact.second))
            fail("it gives ", fact.first.Scalar(), " ", shown(fact.second), ", but the graph was verified with ",
                 shown(verified), ", as verification.json beside it says; export it again");
    }
}

// Return the name of the ONNX file that OpenVINO runs in a precision.
std::string graph_of(const YAML::Node& values, const std::string& precision) {
    const bool for_gpu = text(values["target"], "target", "cpu", {"cpu", "gpu"}) == "gpu";
    if (precision != "int8") {
        if (!values["onnx"]) fail("it names no ONNX graph; export it with --formats onnx");
        return text(values["onnx"], "onnx", "");
    }
    // OpenVINO's int8 products of signed activations saturate on CPUs without VNNI.
    if (for_gpu) fail("it has no int8 graph for OpenVINO; export it with --target cpu");
    if (!values["int8"]) fail("it has no int8 graph; make one with tools/quantize.py");
    return text(values["int8"], "int8", "");
}

void check_task(const YAML::Node& values, const Deployment& deployment) {
    const std::string& op = deployment.output_op;
    const std::string task = text(values["task"], "task", "segmentation");
    if (task != "segmentation") fail("the export is for the task '", task, "', but this program is for segmentation");
    if (values["state_shape"])
        fail(
            "the export is a model for video with a state, but this program runs models for images; use "
            "deploy/python/infer.py");
    if (deployment.takes_frames != (op == "coarse" || op == "labels"))
        fail("input_dtype ", deployment.takes_frames ? "uint8" : "float32", " does not fit output_op ", op);
    if (deployment.num_classes > 256)
        fail("labels are bytes: 256 classes at most, the graph has ", deployment.num_classes);
}

Deployment read(const YAML::Node& root, const fs::path& folder, const std::string& precision) {
    if (!root.IsMap() || !root["Deploy"] || !root["Deploy"].IsMap())
        fail("it must hold a mapping under the key 'Deploy'; is it complete?");
    const YAML::Node values = root["Deploy"];
    check_keys(values, "Deploy", kKeys);
    for (const char* key : {"transforms", "input_shape", "output_op"})
        if (!values[key]) fail("key '", key, "' is missing; the file is not whole");
    const YAML::Node shape = values["input_shape"];
    const bool is_shape = shape.IsSequence() && shape.size() == 4 && !shape[1].IsNull();
    if (!is_shape)
        fail("input_shape must be [N, C, H, W], with null for each of N, H and W that stays open, got ", shown(shape));
    if (whole(shape[1], "input_shape", 0) != 3)
        fail("the graph takes ", shape[1].Scalar(), " channels, but this program reads images of 3");
    Deployment deployment;
    deployment.batch = whole(shape[0], "input_shape", 0);
    deployment.height = whole(shape[2], "input_shape", 0);
    deployment.width = whole(shape[3], "input_shape", 0);
    deployment.takes_frames = text(values["input_dtype"], "input_dtype", "float32", {"float32", "uint8"}) == "uint8";
    deployment.output_op =
        text(values["output_op"], "output_op", "", {"argmax", "coarse", "labels", "none", "softmax"});
    deployment.align_corners = flag(values["align_corners"], "align_corners");
    deployment.num_classes = whole(values["num_classes"], "num_classes", 0);
    deployment.dataset_type = text(values["dataset_type"], "dataset_type", "");
    const size_t names = values["class_names"] ? values["class_names"].size() : 0;
    if (names != size_t(deployment.num_classes))
        fail("class_names must be a list of num_classes = ", deployment.num_classes, " names; the file is not whole");
    deployment.colours = colours_of(values["colors"], deployment.num_classes);
    check_task(values, deployment);
    const Normalisation normalisation = read_transforms(values["transforms"], deployment);
    const std::string graph = graph_of(values, precision);
    for (const std::string& key : kGraphs)
        if (values[key]) check_file(file_of(folder, text(values[key], key, "")), "file of the export", kMostGraph);
    check_verified(folder, values, graph, normalisation);
    deployment.graph = file_of(folder, graph);
    return deployment;
}

}  // namespace

Deployment load_deployment(const fs::path& path, const std::string& precision) {
    const fs::path file = fs::is_directory(path) ? path / "deploy.yaml" : path;
    const std::string content = read_file(file, "deploy.yaml that tools/export.py wrote", kMostYaml);
    const fs::path folder = file.has_parent_path() ? file.parent_path() : fs::path(".");
    try {
        return read(YAML::Load(content), folder, precision);
    } catch (const UserError& error) {
        fail(file.string(), ": ", error.what());
    } catch (const YAML::Exception& error) {
        fail(file.string(), " is not valid YAML, line ", error.mark.line + 1, ": ", error.msg);
    }
}
