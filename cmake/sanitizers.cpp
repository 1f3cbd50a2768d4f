// Part of every program that is built with the sanitizers. Vulkan drivers and layers stay loaded when
// their instance goes, so that what they leave behind is reported with their names and not as <unknown
// module>. Leaks that are known to be theirs are suppressed by library, each with the version it was seen
// in; leak detection itself stays on.

extern "C" int dlclose(void*) { return 0; } // found before libc's by the Vulkan loader and by the drivers

extern "C" const char* __lsan_default_suppressions() {
    return "";
}
