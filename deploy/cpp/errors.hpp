// A mistake in the user's input: one line that says what is wrong, what was expected and what to do.
#pragma once

#include <sstream>
#include <stdexcept>

struct UserError : std::runtime_error {
    int exit_code;
    UserError(const std::string& message, int code) : std::runtime_error(message), exit_code(code) {}
};

// Throw a UserError whose message is all parts, one after the other.
template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
    std::ostringstream message;
    (message << ... << parts);
    throw UserError(message.str(), 1);
}
