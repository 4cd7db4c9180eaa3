// Files: only plain ones are read, and new ones are written whole or not at all.
#pragma once

#include <filesystem>
#include <functional>
#include <string>

// Throw a UserError unless there is a regular file that is neither empty nor larger than `most` bytes; return its size.
size_t check_file(const std::filesystem::path& path, const std::string& what, size_t most);

// Check a file and return its bytes.
std::string read_file(const std::filesystem::path& path, const std::string& what, size_t most);

// Let `write` fill a temporary file beside `path`, which then takes its place; an exception leaves no file.
void write_whole(const std::filesystem::path& path, const std::function<void(const std::filesystem::path&)>& write);
void write_whole(const std::filesystem::path& path, const void* data, size_t size);
