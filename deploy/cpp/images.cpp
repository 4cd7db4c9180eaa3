#include "images.hpp"

#include <zlib.h>

#include <algorithm>
#include <map>
#include <opencv2/imgcodecs.hpp>
#include <set>

#include "errors.hpp"
#include "files.hpp"

namespace {

// RGB in hexadecimal digits, in the order of the training labels, as paddle_rt/imaging/palettes.py has them.
const std::string kCityscapes =
    "804080f423e846464666669cbe9999999999faaa1edcdc006b8e2398fb984682b4dc143cff000000008e000046003c640050640000e6770b2"
    "0";
const std::map<std::string, std::string> kColours = {
    {"Cityscapes", kCityscapes},
    {"StreetScenes", kCityscapes},
    {"CamVid", "808080800000c0c0808040800000c0808000c080804040804000804040000080c0"},
    {"ADE20K",
     "787878b4787806e6e650323204c8037878508c8c8ccc05ffe6e6e604fa07e005ffebff0796053d78784608ff33ff06528fff8cccff04ff33"
     "07cc46030066c83de6faff06330b66ffff0747ff09e00907e6dcdcdcff095c7009ff08ffd607ffe0ffb8060aff47ff290a07ffffe0ff0866"
     "08ffff3d06ffc207ff7a0800ff14ff0829ff05990633ffeb0cffa0961400a3ff8c8c8cfa0a0f14ff001fff00ff1f00ffe00099ff000000ff"
     "ff470000ebff00adff1f00ff0bc8c8ff520000fff5003dff00ff7000ff85ff0000ffa300ff6600c2ff00008fff33ff000052ff00ff2900ff"
     "ad0a00ffadff0000ff99ff5c00ff00ffff00f5ff0066ffad00ff0014ffb8b8001fff00ff3d0047ffff00cc00ffc200ff52000aff0070ff33"
     "00ff00c2ff007aff00ffa3ff990000ff0aff70008fff005200ffa3ff00ffeb0008b8aa8500ff00ff5cb800ffff001f00b8ff00d6ffff0070"
     "5cff0000e0ff70e0ff46b8a0a300ff9900ff47ff00ff00a3ffcc00ff008f00ffeb85ff00ff00ebf500ffff007afff5000abed4d6ff0000cc"
     "ff1400ffffff000099ff0029ff00ffcc2900ff29ff00ad00ff00f5ff4700ff7a00ff00ffb8005cffb8ff000085ffffd60019c2c266ff005c"
     "00ff"}};
const std::set<std::string> kSuffixes = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"};
const std::string kPng = "\x89PNG\r\n\x1a\n";
constexpr size_t kMostBytes = (size_t(1) << 31) - 1;  // OpenCV's limit
constexpr double kWeight = 0.6;                       // of the image in an overlay, as in PaddleSeg

bool starts_with(const std::string& data, const std::string& start) {
    return data.compare(0, start.size(), start) == 0;
}

size_t big_endian(const std::string& data, size_t at, int bytes) {
    size_t value = 0;
    for (int i = 0; i < bytes; ++i) value = value << 8 | uint8_t(data[at + i]);
    return value;
}

std::string big_endian(size_t value) {
    return {char(value >> 24 & 255), char(value >> 16 & 255), char(value >> 8 & 255), char(value & 255)};
}

// Whether a JPEG has its end marker behind its headers, whose thumbnails have end markers of their own. OpenCV fills
// what is missing with grey.
bool is_whole_jpeg(const std::string& data) {
    size_t at = 2;
    while (at + 4 <= data.size() && uint8_t(data[at]) == 0xff && uint8_t(data[at + 1]) != 0xda) {
        const uint8_t marker = data[at + 1];
        const bool has_length = marker != 0x01 && !(0xd0 <= marker && marker <= 0xd8);
        at += marker == 0xff ? 1 : has_length ? 2 + big_endian(data, at + 2, 2) : 2;
    }
    return data.find("\xff\xd9", at) != std::string::npos;
}

// Whether the chunks of a PNG have their checksums and its end is there.
bool is_whole_png(const std::string& data) {
    for (size_t at = kPng.size(); at + 12 <= data.size();) {
        const size_t length = big_endian(data, at, 4), end = at + 8 + length;
        if (end + 4 > data.size()) return false;
        const auto* bytes = reinterpret_cast<const Bytef*>(data.data()) + at + 4;
        if (crc32(0, bytes, uInt(length + 4)) != big_endian(data, end, 4)) return false;
        if (data.compare(at + 4, 4, "IEND") == 0) return true;
        at = end + 4;
    }
    return false;
}

cv::Mat decode(const std::filesystem::path& path, const std::string& data, int flags) {
    const cv::Mat bytes(1, int(data.size()), CV_8UC1, const_cast<char*>(data.data()));
    cv::Mat image;
    try {
        image = cv::imdecode(bytes, flags);
    } catch (const cv::Exception& error) {
        fail("cannot decode image ", path.string(), ": ", error.err, " (OpenCV's limit is 2^30 pixels)");
    }
    if (image.empty())
        fail("cannot decode image ", path.string(), ": it is damaged, or not an image (", data.size(), " bytes)");
    return image;
}

std::string png_chunk(const std::string& name, const std::string& content) {
    const std::string body = name + content;
    return big_endian(content.size()) + body +
           big_endian(crc32(0, reinterpret_cast<const Bytef*>(body.data()), uInt(body.size())));
}

// The colours of all 256 values of a label, black from the palette's end on.
std::array<std::array<uint8_t, 3>, 256> colour_table(const Palette& colours) {
    std::array<std::array<uint8_t, 3>, 256> table{};
    std::copy_n(colours.begin(), std::min<size_t>(colours.size(), 256), table.begin());
    return table;
}

}  // namespace

Palette palette(const std::string& dataset_type, int num_classes) {
    const int number = num_classes ? num_classes : 255;
    Palette colours(number);
    const auto known = kColours.find(dataset_type);
    const bool fits = known != kColours.end() && known->second.size() == size_t(6 * number);
    for (int i = 0; i < number; ++i)
        for (int channel = 0; channel < 3; ++channel) {
            if (fits)
                colours[i][channel] = uint8_t(std::stoi(known->second.substr(6 * i + 2 * channel, 2), nullptr, 16));
            // Bit 3k + c of VOC's index is bit 7 - k of channel c; its colour 0, black, is for what is not labelled.
            for (int bit = 0; bit < 8 && !fits; ++bit)
                colours[i][channel] |= ((i + 1) >> (3 * bit + channel) & 1) << (7 - bit);
        }
    return colours;
}

bool is_image(const std::filesystem::path& path) {
    std::string suffix = path.extension().string();
    std::transform(suffix.begin(), suffix.end(), suffix.begin(),
                   [](unsigned char letter) { return std::tolower(letter); });
    return kSuffixes.count(suffix) > 0;
}

cv::Mat read_image(const std::filesystem::path& path) {
    const std::string data = read_file(path, "image", kMostBytes);
    const bool is_jpeg = starts_with(data, "\xff\xd8"), is_png = starts_with(data, kPng);
    if ((is_jpeg && !is_whole_jpeg(data)) || (is_png && !is_whole_png(data)))
        fail("cannot decode image ", path.string(), ": it is damaged or cut off; copy or download it again");
    if (is_png) {
        if (data.at(24) == 16) fail("image ", path.string(), " has 16 bits a channel, expected 8; convert it first");
    } else if (!is_jpeg && !starts_with(data, "BM") && !starts_with(data, "RIFF")) {  // those two have 8 bits only
        const cv::Mat image = decode(path, data, cv::IMREAD_UNCHANGED);
        if (image.depth() != CV_8U)
            fail("image ", path.string(), " has ", 8 * image.elemSize1(),
                 " bits a channel, expected 8; convert it first");
        if (image.channels() > 4)
            fail("image ", path.string(), " has ", image.channels(), " channels, expected 1, 3 or 4");
    }
    return decode(path, data, cv::IMREAD_COLOR);
}

void write_label(const std::filesystem::path& path, const cv::Mat& labels, const Palette& colours) {
    std::string rows, table;
    for (int y = 0; y < labels.rows; ++y) {
        rows += '\0';  // no filter
        rows.append(labels.ptr<char>(y), labels.cols);
    }
    for (const auto& colour : colour_table(colours)) table.append(colour.begin(), colour.end());
    uLongf size = compressBound(rows.size());
    std::string packed(size, '\0');
    auto* target = reinterpret_cast<Bytef*>(packed.data());
    if (compress(target, &size, reinterpret_cast<const Bytef*>(rows.data()), rows.size()) != Z_OK)
        fail("zlib compresses no ", path.string());
    packed.resize(size);
    const std::string header = big_endian(labels.cols) + big_endian(labels.rows) + std::string("\x08\x03\0\0\0", 5);
    const std::string data =
        kPng + png_chunk("IHDR", header) + png_chunk("PLTE", table) + png_chunk("IDAT", packed) + png_chunk("IEND", "");
    write_whole(path, data.data(), data.size());
}

cv::Mat overlay(const cv::Mat& image, const cv::Mat& labels, const Palette& colours) {
    const auto table = colour_table(colours);
    cv::Mat drawn(image.size(), CV_8UC3), mixed;
    for (int y = 0; y < image.rows; ++y)
        for (int x = 0; x < image.cols; ++x) {
            const auto& [red, green, blue] = table[labels.at<uchar>(y, x)];
            drawn.at<cv::Vec3b>(y, x) = {blue, green, red};
        }
    cv::addWeighted(image, kWeight, drawn, 1 - kWeight, 0, mixed);
    if (colours.size() < 256) image.copyTo(mixed, labels >= double(colours.size()));
    return mixed;
}
