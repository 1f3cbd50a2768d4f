// Names of models in the cache of Hugging Face's tools: which folder they mean, and what is refused.
#include "checkpoint/help.h"
#include "checkpoint/hub.h"

using namespace fathom;
using namespace help;

namespace {

const std::string first(40, 'a'), second(40, 'b');
const int cleared = unsetenv("HF_HUB_CACHE"); // the person's own, before any test

// A cache that $HF_HUB_CACHE names for as long as this lives.
class Cache : public TemporaryFolder {
  public:
    Cache() { REQUIRE(setenv("HF_HUB_CACHE", path.c_str(), 1) == 0); }
    ~Cache() { unsetenv("HF_HUB_CACHE"); }
    fs::path model() const { return path / "models--org--some.name"; }
    fs::path snapshot(const std::string& commit) const { return model() / "snapshots" / commit; }
    void add(const std::string& commit) const {
        fs::create_directories(model() / "blobs");
        fs::create_directories(snapshot(commit));
        write(model() / "blobs" / "1234", "{}");
        fs::create_symlink("../../blobs/1234", snapshot(commit) / "config.json");
    }
    void refer(const std::string& revision, const std::string& to) const {
        fs::create_directories((model() / "refs" / revision).parent_path());
        write(model() / "refs" / revision, to);
    }
};

std::string refusal(const std::string& name) {
    return error_of([&] { find_model(name); });
}
bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

} // namespace

TEST_CASE("hub: a name means the files of its revision") {
    const Cache cache;
    cache.add(first);
    CHECK(find_model("org/some.name") == cache.snapshot(first)); // the only one
    cache.add(second);
    CHECK(has(refusal("org/some.name"), "several revisions"));
    CHECK(has(refusal("org/some.name"), "org/some.name@" + first));
    cache.refer("main", second + "\n");
    cache.refer("refs/pr/1", first);
    CHECK(find_model("org/some.name") == cache.snapshot(second));
    CHECK(find_model("org/some.name@main") == cache.snapshot(second));
    CHECK(find_model("org/some.name@refs/pr/1") == cache.snapshot(first));
    CHECK(find_model("org/some.name@" + first) == cache.snapshot(first));
    CHECK(name_in_hub(cache.snapshot(first)) == "org/some.name");
    CHECK_FALSE(name_in_hub(cache.model()));
    CHECK(find_model(cache.path.string()) == cache.path); // what exists is itself
}

TEST_CASE("hub: what the cache lacks or has in part") {
    const Cache cache;
    CHECK(has(refusal("org/some.name"), "no such model"));
    CHECK(has(refusal("org/some.name@v1"), "hf download org/some.name --revision v1"));
    cache.refer("main", first);
    CHECK(has(refusal("org/some.name"), "incomplete"));
    cache.add(first);
    CHECK(has(refusal("org/some.name@v1"), "revision not in the cache"));
    CHECK(has(refusal("org/some.name@" + second), "revision not in the cache"));
    fs::remove(cache.model() / "blobs" / "1234");
    CHECK(has(refusal("org/some.name"), "config.json leads to nothing"));
    cache.refer("main", "../elsewhere");
    CHECK(has(refusal("org/some.name"), "damaged cache"));
}

TEST_CASE("hub: names that lead elsewhere are no names") {
    const Cache cache;
    for (const std::string name :
         {"", "/", "a/", "/b", "../b", "a/..", "a/b/c", "./b", "a--b/c", "a/b--c", "a/-b", "a\n/b", "a/b..c"})
        CHECK(find_model(name) == fs::path(name));
    CHECK(find_model("a/" + std::string(97, 'b')) == "a/" + std::string(97, 'b'));
    for (const std::string revision : {"", "..", "../x", "a/../b", "/x", "x/", ".x", "a\nb", "a b"})
        CHECK(has(refusal("org/some.name@" + revision), "not a revision"));
    CHECK(has(refusal("org/some.name@" + std::string(256, 'x')), "not a revision"));
}

TEST_CASE("hub: where the cache is") {
    const TemporaryFolder folder;
    const fs::path below = fs::path("models--org--name") / "snapshots" / first;
    const auto found = [&](const char* variable, const fs::path& hub) {
        const char* before = getenv(variable);
        const std::string old = before ? before : "";
        fs::create_directories(folder.path / hub / below);
        setenv(variable, folder.path.c_str(), 1);
        const fs::path result = find_model("org/name");
        before ? setenv(variable, old.c_str(), 1) : unsetenv(variable);
        fs::remove_all(folder.path / hub);
        CHECK(result == folder.path / hub / below);
    };
    setenv("HF_HOME", "", 1); // empty is not set
    found("HF_HUB_CACHE", "");
    found("HF_HOME", "hub");
    found("XDG_CACHE_HOME", fs::path("huggingface") / "hub");
    const char* cache = getenv("XDG_CACHE_HOME");
    const std::string old = cache ? cache : "";
    unsetenv("XDG_CACHE_HOME");
    found("HOME", fs::path(".cache") / "huggingface" / "hub");
    if (!old.empty()) setenv("XDG_CACHE_HOME", old.c_str(), 1);
    unsetenv("HF_HOME");
}
