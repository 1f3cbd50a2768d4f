// Loses memory on purpose: in builds with the sanitizers a test runs this program to see that a leak is still
// reported, whatever has been suppressed. It has no other use.
#include <cstdlib>

int main() {
    volatile char* lost = static_cast<char*>(std::malloc(77));
    lost[0] = 1;
    lost = nullptr;
}
