// A heat map: cells of a texture, coloured by a shader of ours inside a draw callback, so that its size costs
// nothing and no version of ImGui's back end needs to know textures. Values in Viridis; a cell that is pinned
// has its pin's hue, one that is missing a hatching.
#pragma once

#include <imgui.h>

#include <cstdint>
#include <vector>

namespace fathom::viewer::ui {

class HeatMap {
  public:
    static constexpr uint8_t MISSING = 255; // instead of a pin
    struct Cell {
        uint8_t value = 0; // 0 to 255
        uint8_t pin = 0;   // 0: none; 1 to PINS
    };
    HeatMap() = default;
    ~HeatMap();
    HeatMap(const HeatMap&) = delete;

    void resize(uint32_t width, uint32_t height); // cells become 0
    uint32_t width() const { return width_; }
    uint32_t height() const { return height_; }
    Cell& at(uint32_t x, uint32_t y) { return changed_ = true, cells_[size_t{y} * width_ + x]; }
    const Cell& at(uint32_t x, uint32_t y) const { return cells_[size_t{y} * width_ + x]; }
    // Into a rectangle of the window; the first row is on top.
    void draw(ImDrawList* list, ImVec2 from, ImVec2 to);

    ImVec2 from() const { return from_; } // where it was drawn last
    ImVec2 to() const { return to_; }

  private:
    static void render(const ImDrawList* list, const ImDrawCmd* command);
    uint32_t width_ = 0, height_ = 0;
    std::vector<Cell> cells_;
    bool changed_ = false;
    ImVec2 from_, to_; // of this frame
    uint32_t texture_ = 0, texture_width_ = 0, texture_height_ = 0;
};

// Frees what all heat maps share; the GL context must be current.
void release_heatmaps();

} // namespace fathom::viewer::ui
