// The text rules: a line or a word is looked for, after comments and literals are blanked where they do not
// count.
#include "rules.h"

#include <algorithm>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <iterator>
#include <map>
#include <regex>
#include <sstream>

namespace seams {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> lines_of(std::string_view text) {
    std::vector<std::string> lines;
    std::istringstream stream{std::string(text)};
    for (std::string line; std::getline(stream, line);) lines.push_back(line);
    return lines;
}

// One objection for each line that `pattern` is found in.
Objections search(const File& file, std::string_view text, const std::regex& pattern, std::string_view what) {
    Objections objections;
    uint32_t number = 0;
    for (const std::string& line : lines_of(text)) {
        number++;
        std::smatch match;
        if (std::regex_search(line, match, pattern))
            objections.push_back(fmt::format("{}:{}: {}: {}", file.path, number, what, match.str()));
    }
    return objections;
}

// Rooms by height: a room includes itself and lower ones, never its neighbours.
int height(const std::string& room) {
    static const std::map<std::string, int> rooms = {
        {"base", 0},  {"trace", 1},   {"gpu", 2},   {"checkpoint", 2}, {"text", 2}, {"viewer", 5},
        {"model", 3}, {"session", 4}, {"bench", 5}, {"server", 5},     {"cli", 6}};
    const auto room_height = rooms.find(room);
    return room_height == rooms.end() ? -1 : room_height->second;
}

std::string first_folder(std::string_view path) { return std::string(path.substr(0, path.find('/'))); }

// Does a path that climbs, seen from the folder of `file`, stay inside the repository?
bool stays_inside(const File& file, const std::string& climbing) {
    return !(fs::path(file.path).parent_path() / climbing).lexically_normal().string().starts_with("..");
}

} // namespace

std::vector<File> repository() {
    static const std::vector<std::string> extensions = {".cpp", ".h",  ".comp", ".glsl", ".py",   ".cmake",
                                                        ".txt", ".md", ".json", ".sh",   ".lock", ""};
    std::vector<File> files;
    const fs::path root = fs::path(FATHOM_SOURCE_DIR).lexically_normal();
    for (auto entry = fs::recursive_directory_iterator(root); entry != fs::recursive_directory_iterator();
         ++entry) {
        const std::string name = entry->path().filename().string();
        const std::string path = entry->path().lexically_relative(root).generic_string();
        if (entry->is_directory()) {
            const bool hidden = name.starts_with('.') && name != ".ci";
            if (hidden || path == "build" || name == "__pycache__" || name == "node_modules")
                entry.disable_recursion_pending();
            continue;
        }
        if (name == ".git") continue; // of a worktree: names the repository it belongs to
        const bool data = path.starts_with("models/") || path.starts_with("tests/golden/");
        const std::string extension = entry->path().extension().string();
        const bool written = std::find(extensions.begin(), extensions.end(), extension) != extensions.end();
        if (!written || (data && extension != ".py" && extension != ".md" && extension != ".h")) continue;
        std::ifstream stream(entry->path(), std::ios::binary);
        files.push_back({path, {std::istreambuf_iterator<char>(stream), {}}});
    }
    return files;
}

bool in(const File& file, std::string_view folder) { return file.path.starts_with(folder); }
bool has_extension(const File& file, std::string_view extension) { return file.path.ends_with(extension); }

Objections vulkan_names(const File& file) {
    const bool code = in(file, "engine/") || in(file, "tests/");
    if (!code || in(file, "engine/gpu/") || in(file, "tests/gpu/")) return {};
    static const std::regex pattern(R"([<"]vulkan/|[<"]vulkan\.|\bVk[A-Z]\w*|\bvk::|\bvk[A-Z]\w*\()");
    return search(file, file.text, pattern, "Vulkan outside engine/gpu");
}

Objections include_arrows(const File& file) {
    const bool viewer = in(file, "viewer/");
    if (!in(file, "engine/") && !viewer) return {};
    Objections objections;
    const std::string room = viewer ? "viewer" : first_folder(file.path.substr(7));
    if (height(room) < 0) return {fmt::format("{}: no room is called '{}'", file.path, room)};
    static const std::regex pattern(R"(^\s*#\s*include\s*"([^"]*)\")");
    uint32_t number = 0;
    for (const std::string& line : lines_of(file.text)) {
        number++;
        std::smatch match;
        if (!std::regex_search(line, match, pattern)) continue;
        const std::string included = match[1], other = first_folder(included);
        // Without a folder it is the shared shader headers, a generated one, or a file beside this one.
        const bool no_folder = included.find('/') == std::string::npos;
        if (no_folder || other == room) continue;
        if (height(other) < 0)
            objections.push_back(fmt::format("{}:{}: '{}' is in no room", file.path, number, included));
        else if (height(other) >= height(room))
            objections.push_back(
                fmt::format("{}:{}: {} must not include {}", file.path, number, room, included));
    }
    return objections;
}

Objections viewer_hosts(const File& file) {
    if (!in(file, "viewer/")) return {};
    static const std::regex rooms(R"(#\s*include\s*"(gpu|checkpoint|text|model|session|bench|server|cli)/)");
    static const std::regex hosts(R"(#\s*include\s*["<](GLFW|backends/|thread|mutex|fstream|filesystem))");
    static const std::regex below(R"(#\s*include\s*"(trace|base)/)");
    Objections all = search(file, file.text, rooms, "the viewer knows of the engine what it tells");
    const auto add = [&](const std::regex& pattern, const char* what) {
        for (const std::string& objection : search(file, file.text, pattern, what)) all.push_back(objection);
    };
    const bool host = in(file, "viewer/desktop/") || in(file, "viewer/web/") || in(file, "viewer/host/");
    if (!host) add(hosts, "a window, a file or a thread outside the viewer's hosts");
    if (in(file, "viewer/panels/")) add(below, "a panel sees the store alone");
    return all;
}

Objections trigonometry(const File& file) {
    if (!in(file, "shaders/")) return {};
    static const std::regex pattern(R"(\b(sin|cos|tan)\s*\()");
    return search(file, code_only(file.text), pattern,
                  "a shader computes an angle's function; use the table");
}

Objections counted_grids(const File& file) {
    const bool meets = file.text.find("#include \"arrival.glsl\"") != std::string::npos;
    if (!in(file, "shaders/") || !(meets || file.path.ends_with("/arrival.glsl"))) return {};
    static const std::regex pattern("gl_NumWorkGroups");
    return search(file, code_only(file.text), pattern, "workgroups that meet are not those of one launch");
}

Objections outside_paths(const File& file) {
    // Put together here so that this file does not name what it looks for.
    static const std::regex machine(R"((^|[\s"'`=(:,;<>\[])/()"
                                    "work|home|root|tmp|opt|mnt|media|srv|farm|Users)/");
    static const std::regex climbing(R"((^|[^.\w])((\.\./)+[\w-][\w./-]*))");
    Objections objections = search(file, file.text, machine, "a path of one machine");
    uint32_t number = 0;
    for (const std::string& line : lines_of(file.text)) {
        number++;
        for (std::sregex_iterator match(line.begin(), line.end(), climbing), end; match != end; ++match) {
            const std::string path = (*match)[2];
            const bool shared = path == "../shared" || path.find("../shared/") != std::string::npos;
            if (!shared && !stays_inside(file, path))
                objections.push_back(fmt::format("{}:{}: a path outside: {}", file.path, number, path));
        }
    }
    return objections;
}

Objections ceilings(const File& file) {
    constexpr size_t max_lines = 800, max_columns = 110;
    if (has_extension(file, ".md") || has_extension(file, ".json") || file.path == "LICENSE") return {};
    Objections objections;
    const std::vector<std::string> lines = lines_of(file.text);
    if (lines.size() > max_lines)
        objections.push_back(fmt::format("{}: {} lines of at most {}", file.path, lines.size(), max_lines));
    for (size_t i = 0; i < lines.size(); i++) {
        // Code points, not bytes: continuation bytes of UTF-8 are not columns.
        const auto columns =
            std::count_if(lines[i].begin(), lines[i].end(), [](char c) { return (c & 0xC0) != 0x80; });
        if (static_cast<size_t>(columns) > max_columns)
            objections.push_back(
                fmt::format("{}:{}: {} columns of at most {}", file.path, i + 1, columns, max_columns));
    }
    return objections;
}

Objections capabilities(std::string_view module, std::span<const uint32_t> spirv) {
    constexpr uint32_t magic = 0x07230203, header_words = 5, op_capability = 17;
    static const std::map<uint32_t, const char*> refused = {{9, "Float16"},
                                                            {10, "Float64"},
                                                            {11, "Int64"},
                                                            {12, "Int64Atomics"},
                                                            {22, "Int16"},
                                                            {39, "Int8"},
                                                            {4433, "StorageBuffer16BitAccess"},
                                                            {4434, "UniformAndStorageBuffer16BitAccess"},
                                                            {4435, "StoragePushConstant16"},
                                                            {4448, "StorageBuffer8BitAccess"},
                                                            {4449, "UniformAndStorageBuffer8BitAccess"},
                                                            {4450, "StoragePushConstant8"}};
    if (spirv.size() <= header_words || spirv[0] != magic) return {fmt::format("{}: not SPIR-V", module)};
    Objections objections;
    for (size_t at = header_words; at < spirv.size();) {
        const uint32_t words = spirv[at] >> 16, op = spirv[at] & 0xFFFF;
        if (words == 0 || at + words > spirv.size())
            return {fmt::format("{}: broken SPIR-V at word {}", module, at)};
        if (op == op_capability && refused.contains(spirv[at + 1]))
            objections.push_back(fmt::format("{}: declares {}", module, refused.at(spirv[at + 1])));
        at += words;
    }
    return objections;
}

} // namespace seams
