// How evenly the experts were used, from routing records: for each MoE layer the load of every expert, its
// coefficient of variation (standard deviation over mean, 0 when even) and its entropy (log2 of the experts
// when even).
#pragma once

#include "cli/terminal.h"
#include "trace/record.h"

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace fathom::cli {

struct LayerLoad {
    uint32_t layer = 0;         // number in the model
    std::vector<uint64_t> load; // (n_routed_experts): how many tokens chose each
    double cv = 0;
    double entropy = 0; // bits
};

class RoutingSummary {
  public:
    explicit RoutingSummary(const trace::Shape& shape);
    void add(std::span<const trace::TokenRecord> records);
    void clear();

    uint64_t tokens() const { return tokens_; }
    const std::vector<LayerLoad>& layers(); // in the order of the model

    // The table for a person, in `width` columns; ends with a newline. Empty when no record was added.
    std::string table(const Style& style, uint32_t width);
    // One line: the span of CV over the layers and the mean entropy, for where the table would be in the way.
    std::string line();

  private:
    uint32_t n_experts_, n_active_;
    uint64_t tokens_ = 0;
    std::vector<LayerLoad> layers_;
};

double load_cv(std::span<const uint64_t> load);      // 0 for no load at all
double load_entropy(std::span<const uint64_t> load); // bits

// One cell for each expert, or for each group of neighbours when there are more than `cells`: a bar whose
// half height is an even share, and a dot where nothing was chosen.
std::string load_bar(std::span<const uint64_t> load, uint32_t cells, const Style& style);

} // namespace fathom::cli
