// What the tests of this folder share: a folder that is removed again, bytes in and out, and the message of
// an Error. Any other exception than Error passes through and fails the test: bad input must never look like
// our own mistake.
#pragma once

#include "base/error.h"
#include "checkpoint/checkpoint.h"

#include <cstring>
#include <doctest/doctest.h>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <stdlib.h>
#include <string>
#include <vector>

namespace help {

namespace fs = std::filesystem;
using Bytes = std::vector<std::byte>;

// A new folder, removed with its content at the end of the scope.
class TemporaryFolder {
  public:
    TemporaryFolder() {
        std::string name = (fs::temp_directory_path() / "fathom-test-XXXXXX").string();
        REQUIRE(mkdtemp(name.data()) != nullptr);
        path = name;
    }
    ~TemporaryFolder() { fs::remove_all(path); }
    fs::path path;
    fs::path operator/(const std::string& name) const { return path / name; }
    size_t files() const {
        return static_cast<size_t>(std::distance(fs::directory_iterator(path), fs::directory_iterator()));
    }
};

inline std::string read(const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    REQUIRE_MESSAGE(file.good(), path.string());
    return {std::istreambuf_iterator<char>(file), {}};
}

inline void write(const fs::path& path, std::string_view text) {
    std::ofstream file(path, std::ios::binary);
    file << text;
    REQUIRE_MESSAGE(file.flush().good(), path.string());
}

inline Bytes bytes_of(std::string_view text) {
    Bytes bytes(text.size());
    if (!text.empty()) std::memcpy(bytes.data(), text.data(), text.size());
    return bytes;
}

// The message of the Error that `action` throws, or "" when it throws nothing.
template <class Action> std::string error_of(Action&& action) {
    try {
        action();
    } catch (const fathom::Error& error) {
        CHECK_MESSAGE(!error.parts().what.empty(), error.what());
        return error.what();
    }
    return "";
}

// The shared test data, which lie beside the checkout. Says so when they are absent.
inline bool have_shared(const std::string& part) {
    const bool have = fs::exists(fs::path(FATHOM_SHARED_DIR) / part);
    if (!have)
        MESSAGE("SKIPPED: no " << FATHOM_SHARED_DIR << "/" << part << "; this test proves nothing here");
    return have;
}

// The bytes of a safetensors file: header length, header, data.
inline std::string safetensors(const std::string& header, const std::string& data = "") {
    const uint64_t length = header.size();
    std::string file(8, '\0');
    std::memcpy(file.data(), &length, 8);
    return file + header + data;
}

} // namespace help
