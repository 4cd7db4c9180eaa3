#include "files.hpp"

#include <unistd.h>

#include <fstream>

#include "errors.hpp"

namespace fs = std::filesystem;

size_t check_file(const fs::path& path, const std::string& what, size_t most) {
    std::error_code error;
    const fs::file_status status = fs::status(path, error);
    if (status.type() == fs::file_type::not_found) fail("no ", what, " at ", path.string());
    if (error) fail(path.string(), " cannot be read (", what, "): ", error.message());
    if (!fs::is_regular_file(status))  // opening a pipe or a device may wait for ever
        fail(path.string(), " is no regular file, expected a ", what);
    const uintmax_t size = fs::file_size(path, error);
    if (error || size == 0) fail(what, " ", path.string(), " is empty (0 bytes)");
    if (size > most) fail(path.string(), " has ", size, " bytes, expected at most ", most, " (", what, ")");
    return size;
}

std::string read_file(const fs::path& path, const std::string& what, size_t most) {
    std::string data(check_file(path, what, most), '\0');
    std::ifstream file(path, std::ios::binary);
    if (!file.read(data.data(), std::streamsize(data.size()))) fail("cannot read ", what, " ", path.string());
    return data;
}

void write_whole(const fs::path& path, const std::function<void(const fs::path&)>& write) {
    if (fs::exists(path) && !fs::is_regular_file(path)) fail(path.string(), " is no regular file and is not replaced");
    if (!path.parent_path().empty()) fs::create_directories(path.parent_path());
    // The suffix stays, since FFmpeg chooses the format by it.
    const fs::path part = path.parent_path() / ("." + path.stem().string() + "." + std::to_string(getpid()) + ".part" +
                                                path.extension().string());
    try {
        write(part);
        fs::rename(part, path);
    } catch (...) {
        std::error_code ignored;
        fs::remove(part, ignored);
        throw;
    }
}

void write_whole(const fs::path& path, const void* data, size_t size) {
    write_whole(path, [&](const fs::path& part) {
        std::ofstream file(part, std::ios::binary);
        file.write(static_cast<const char*>(data), std::streamsize(size));
        file.close();
        if (!file) fail("cannot write ", path.string(), "; is the disk full?");
    });
}
