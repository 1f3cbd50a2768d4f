// The seams of the repository: each rule is first shown to object to a bad sample, then held against every
// file.
#include "gpu/modules.h"
#include "seams/rules.h"

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <set>

using namespace seams;

namespace {

// Samples are put together from pieces, so that this file does not break the rules it tests.
const std::string vk = "V"
                       "k";
const std::string climb = ".."
                          "/";
std::string machine_path(std::string_view folder) { return "/" + std::string(folder) + "/someone/model"; }

template <class Rule> void hold(Rule rule) {
    const std::vector<File> files = repository();
    REQUIRE(files.size() > 20); // the walk found the repository at all
    for (const File& file : files)
        for (const std::string& objection : rule(file)) FAIL_CHECK(objection);
}

// Functions with leave to be longer than 60 lines, up to 150: each one straight line that reads best in one
// piece.
const std::set<std::string> long_functions = {};

std::string full_name(const File& file, const Function& function) { return file.path + " " + function.name; }

Objections long_function_rule(const File& file) {
    Objections objections;
    for (const Function& function : functions(file)) {
        const uint32_t most = long_functions.contains(full_name(file, function)) ? 150 : 60;
        if (function.lines > most)
            objections.push_back(fmt::format("{}:{}: {} has {} lines of at most {}", file.path, function.line,
                                             function.name, function.lines, most));
    }
    return objections;
}

} // namespace

TEST_CASE("only engine/gpu knows Vulkan") {
    const std::vector<std::string> samples = {"#include <vul"
                                              "kan/vulkan_raii.hpp>",
                                              "int f(" + vk + "Buffer b);",
                                              "v"
                                              "k::raii::Device device;"};
    for (const std::string& bad : samples) {
        CHECK(vulkan_names({"engine/model/plan.h", bad}).size() == 1);
        CHECK(vulkan_names({"engine/gpu/device.h", bad}).empty());
    }
    CHECK(vulkan_names({"engine/model/plan.h", "// the Vulkan device"}).empty());
    hold(vulkan_names);
}

TEST_CASE("rooms include downward only") {
    const auto include = [](const char* path) {
        return "#include <vector>\n#include \"" + std::string(path) + "\"\n";
    };
    CHECK(include_arrows({"engine/base/file.cpp", include("gpu/device.h")}).size() == 1);
    CHECK(include_arrows({"engine/gpu/device.cpp", include("checkpoint/checkpoint.h")}).size() == 1);
    CHECK(include_arrows({"engine/model/plan.cpp", include("session/engine.h")}).size() == 1);
    CHECK(include_arrows({"engine/trace/record.h", include("model/config.h")}).size() == 1);
    CHECK(include_arrows({"engine/model/plan.cpp", include((climb + "gpu/device.h").c_str())}).size() == 1);
    CHECK(include_arrows({"engine/model/plan.cpp", include("nowhere/x.h")}).size() == 1);
    CHECK(include_arrows({"engine/nowhere/x.cpp", include("base/error.h")}).size() == 1);
    CHECK(include_arrows({"engine/model/plan.cpp", include("gpu/device.h") + include("params.h")}).empty());
    CHECK(include_arrows({"engine/cli/run.cpp", include("gpu/device.h") + include("cli/options.h")}).empty());
    CHECK(include_arrows({"viewer/store.h", include("cli/generate.h")}).size() == 1);
    CHECK(include_arrows({"viewer/store.h", include("trace/file.h") + include("viewer/app.h")}).empty());
    CHECK(include_arrows({"engine/session/engine.h", include("viewer/app.h")}).size() == 1);
    hold(include_arrows);
}

TEST_CASE("the viewer's core knows no host, its panels the store alone") {
    CHECK(viewer_hosts({"viewer/app.cpp", "#include <GLFW/glfw3.h>\n"}).size() == 1);
    CHECK(viewer_hosts({"viewer/store.h", "#include <thread>\n"}).size() == 1);
    CHECK(viewer_hosts({"viewer/panels/grid.cpp", "#include \"trace/record.h\"\n"}).size() == 1);
    CHECK(viewer_hosts({"viewer/store.h", "#include \"session/engine.h\"\n"}).size() == 1);
    CHECK(viewer_hosts({"viewer/desktop/window.cpp", "#include <GLFW/glfw3.h>\n"}).empty());
    CHECK(viewer_hosts({"viewer/store.h", "#include \"trace/record.h\"\n"}).empty());
    hold(viewer_hosts);
}

TEST_CASE("no shader computes sines") {
    CHECK(trigonometry({"shaders/rope.comp", "float c = cos(angle); // cosine"}).size() == 1);
    CHECK(trigonometry({"shaders/rope.glsl", "x = sin (y);"}).size() == 1);
    CHECK(trigonometry({"shaders/rope.comp", "// cos(angle) is in the table\nfloat using_sin = table[i];"})
              .empty());
    hold(trigonometry);
}

TEST_CASE("where workgroups meet, none counts by its launch") {
    const std::string meets = "#include \"arrival.glsl\"\n";
    CHECK(counted_grids({"shaders/a.comp", meets + "uint n = gl_NumWorkGroups.x;"}).size() == 1);
    CHECK(counted_grids({"shaders/a.comp", meets + "// not gl_NumWorkGroups\nuint n = p.n;"}).empty());
    CHECK(counted_grids({"shaders/a.comp", "uint n = gl_NumWorkGroups.y;"}).empty());
    hold(counted_grids);
}

TEST_CASE("nothing names a path outside") {
    CHECK(outside_paths({"README.md", "see " + machine_path("home")}).size() == 1);
    CHECK(outside_paths({"tests/a.py", "open('" + machine_path("tmp") + "')"}).size() == 1);
    CHECK(outside_paths({"README.md", "see " + climb + "elsewhere/file"}).size() == 1);
    CHECK(outside_paths({"tests/seams/a.cpp", "\"" + climb + climb + climb + "x\""}).size() == 1);
    CHECK(outside_paths({"tests/seams/a.cpp", "\"" + climb + climb + "x\""}).empty());
    CHECK(outside_paths({"README.md", "see ../shared/data and https://example.org" + machine_path("home")})
              .empty());
    hold(outside_paths);
}

TEST_CASE("files and lines stay small") {
    std::string many;
    for (int i = 0; i < 801; i++) many += "x\n";
    CHECK(ceilings({"engine/base/a.cpp", many}).size() == 1);
    CHECK(ceilings({"engine/base/a.cpp", many.substr(2)}).empty());
    CHECK(ceilings({"shaders/a.comp", std::string(111, 'x')}).size() == 1);
    CHECK(ceilings({"cmake/a.cmake", std::string(110, 'x') + "\n"}).empty());
    std::string wide;
    for (int i = 0; i < 110; i++) wide += "é";
    CHECK(ceilings({"engine/base/a.cpp", wide}).empty());
    hold(ceilings);
}

TEST_CASE("functions are found and measured") {
    const std::vector<Function> found = functions({"a.cpp", R"code(
namespace x {
const char* text = "void not_one() {"; // nor this() {
template <class T> struct S : Base<T> {
    S(int a) : a_{a},
               b_{2} {
        if (a) { f(); }
    }
    bool operator==(const S& o) const { return a_ == o.a_; }
    int a_{f(1)}, b_;
};
int table[] = {f(1), 1'000, '{', g({3})};
template <class T>
auto h(T t) -> std::vector<int>
{
    const auto lambda = [&](int i) {
        return i;
    };
}
extern "C" int k() { return 1; }
})code"});
    std::string names;
    for (const Function& f : found) names += fmt::format("{}@{}+{} ", f.name, f.line, f.lines);
    CHECK(names == "S@5+4 operator==@9+1 h@13+7 k@20+1 ");

    const std::vector<Function> python = functions({"a.py", R"code(def f(a,
      b
):
    def g():
        pass

    x

class C:
    def m(self): pass
)code"});
    names.clear();
    for (const Function& f : python) names += fmt::format("{}@{}+{} ", f.name, f.line, f.lines);
    CHECK(names == "g@4+2 f@1+7 m@10+1 ");
}

TEST_CASE("functions stay short") {
    std::string body;
    for (int i = 0; i < 59; i++) body += "    x();\n";
    CHECK(long_function_rule({"engine/base/a.cpp", "void f() {\n" + body + "}\n"}).size() == 1);
    CHECK(long_function_rule({"engine/base/a.cpp", "void f() {\n" + body.substr(9) + "}\n"}).empty());
    hold(long_function_rule);
}

TEST_CASE("leave to be long is used") {
    std::set<std::string> used;
    for (const File& file : repository())
        for (const Function& function : functions(file))
            if (function.lines > 60) used.insert(full_name(file, function));
    CHECK(used == long_functions);
}

TEST_CASE("base modules need no small or large integers") {
    const uint32_t header[] = {0x07230203, 0x00010600, 0, 8, 0};
    const auto module = [&](uint32_t capability) {
        std::vector<uint32_t> words(std::begin(header), std::end(header));
        words.insert(words.end(), {2u << 16 | 17, 1, 2u << 16 | 17, capability});
        return words;
    };
    CHECK(capabilities("sample", module(61)).empty()); // GroupNonUniform
    for (const uint32_t refused : {9u, 11u, 22u, 39u, 4433u, 4448u})
        CHECK(capabilities("sample", module(refused)).size() == 1);
    CHECK(capabilities("sample", header).size() == 1); // nothing after the header
    REQUIRE(!fathom::gpu::modules().empty());
    // Some roofs and tiers are for optional features, and are used only where a device has them.
    const auto optional = [](std::string_view name) {
        return name == "roof_fma_f16" || name.find("_matrix_") != name.npos ||
               name.find("_half_") != name.npos;
    };
    for (const fathom::gpu::Module& m : fathom::gpu::modules())
        if (optional(m.name)) {
            CHECK(!capabilities(m.name, m.words).empty());
        } else
            for (const std::string& objection : capabilities(m.name, m.words)) FAIL_CHECK(objection);
}
