#include "viewer/ui/heatmap.h"

#include "viewer/ui/gl.h"
#include "viewer/ui/theme.h"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace fathom::viewer::ui {

namespace {

#ifdef __EMSCRIPTEN__
constexpr const char* HEAD = "#version 300 es\nprecision highp float;\nprecision highp int;\n";
#else
constexpr const char* HEAD = "#version 150\n";
#endif

constexpr const char* VERTEX = R"(
uniform vec4 rect; // left, top, right, bottom in clip space
out vec2 uv;
void main() {
    vec2 corner = vec2(float(gl_VertexID & 1), float(gl_VertexID >> 1));
    uv = corner;
    gl_Position = vec4(mix(rect.xy, rect.zw, corner), 0.0, 1.0);
}
)";

constexpr const char* FRAGMENT = R"(
uniform sampler2D cells;
uniform vec3 ramp[9];
uniform vec3 pins[8];
uniform vec3 missing;
in vec2 uv;
out vec4 colour;
void main() {
    ivec2 size = textureSize(cells, 0);
    vec2 cell = texelFetch(cells, min(ivec2(uv * vec2(size)), size - 1), 0).rg;
    float at = cell.r * 8.0;
    int low = min(int(at), 7);
    vec3 rgb = mix(ramp[low], ramp[low + 1], at - float(low));
    int pin = int(cell.g * 255.0 + 0.5);
    if (pin == 255) rgb = mod(gl_FragCoord.x + gl_FragCoord.y, 6.0) < 1.5 ? missing * 1.5 : missing;
    else if (pin != 0) rgb = pins[pin - 1] * (0.45 + 0.55 * cell.r);
    colour = vec4(rgb, 1.0);
}
)";

struct Program {
    GLuint program = 0, vertices = 0;
    GLint rect = -1;
};
Program shared;

GLuint compile(GLenum type, const char* body) {
    const char* sources[] = {HEAD, body};
    const GLuint shader = glCreateShader(type);
    glShaderSource(shader, 2, sources, nullptr);
    glCompileShader(shader);
    GLint done = 0;
    glGetShaderiv(shader, GL_COMPILE_STATUS, &done);
    if (done) return shader;
    char log[1024] = "";
    glGetShaderInfoLog(shader, sizeof(log), nullptr, log);
    throw std::runtime_error(std::string("the heat map's shader: ") + log);
}

void make_program() {
    shared.program = glCreateProgram();
    const GLuint parts[] = {compile(GL_VERTEX_SHADER, VERTEX), compile(GL_FRAGMENT_SHADER, FRAGMENT)};
    for (const GLuint part : parts) glAttachShader(shared.program, part);
    glLinkProgram(shared.program);
    for (const GLuint part : parts) glDeleteShader(part);
    GLint done = 0;
    glGetProgramiv(shared.program, GL_LINK_STATUS, &done);
    if (!done) throw std::runtime_error("the heat map's shader does not link");
    glGenVertexArrays(1, &shared.vertices);
    shared.rect = glGetUniformLocation(shared.program, "rect");
    glUseProgram(shared.program);
    float ramp[27], pins[24];
    for (size_t i = 0; i < 9; ++i) {
        const auto rgb = viridis(float(i) / 8);
        std::copy(rgb.begin(), rgb.end(), ramp + 3 * i);
    }
    for (size_t i = 0; i < PINS; ++i) {
        const ImVec4 rgb = ImGui::ColorConvertU32ToFloat4(PIN_COLOURS[i]);
        pins[3 * i] = rgb.x, pins[3 * i + 1] = rgb.y, pins[3 * i + 2] = rgb.z;
    }
    glUniform3fv(glGetUniformLocation(shared.program, "ramp"), 9, ramp);
    glUniform3fv(glGetUniformLocation(shared.program, "pins"), 8, pins);
    glUniform3f(glGetUniformLocation(shared.program, "missing"), 0.25f, 0.27f, 0.31f);
    glUniform1i(glGetUniformLocation(shared.program, "cells"), 0);
}

} // namespace

HeatMap::~HeatMap() {
    if (texture_ != 0) glDeleteTextures(1, &texture_);
}

void HeatMap::resize(uint32_t width, uint32_t height) {
    width_ = width, height_ = height;
    cells_.assign(size_t{width} * height, Cell{});
    changed_ = true;
}

void HeatMap::draw(ImDrawList* list, ImVec2 from, ImVec2 to) {
    if (cells_.empty() || to.x <= from.x || to.y <= from.y) return;
    from_ = from, to_ = to;
    list->AddCallback(render, this);
    list->AddCallback(ImDrawCallback_ResetRenderState, nullptr);
}

void HeatMap::render(const ImDrawList*, const ImDrawCmd* command) {
    auto& map = *static_cast<HeatMap*>(command->UserCallbackData);
    if (shared.program == 0) make_program();
    glActiveTexture(GL_TEXTURE0);
    if (map.texture_ == 0) {
        glGenTextures(1, &map.texture_);
        glBindTexture(GL_TEXTURE_2D, map.texture_);
        glTexParameteri(GL_TEXTURE_2D, GL_TEXTURE_MIN_FILTER, GL_NEAREST);
        glTexParameteri(GL_TEXTURE_2D, GL_TEXTURE_MAG_FILTER, GL_NEAREST);
    }
    glBindTexture(GL_TEXTURE_2D, map.texture_);
    if (map.changed_) {
        const auto w = static_cast<GLsizei>(map.width_), h = static_cast<GLsizei>(map.height_);
        glPixelStorei(GL_UNPACK_ALIGNMENT, 1);
        glPixelStorei(GL_UNPACK_ROW_LENGTH, 0);
        if (map.texture_width_ == map.width_ && map.texture_height_ == map.height_)
            glTexSubImage2D(GL_TEXTURE_2D, 0, 0, 0, w, h, GL_RG, GL_UNSIGNED_BYTE, map.cells_.data());
        else
            glTexImage2D(GL_TEXTURE_2D, 0, GL_RG8, w, h, 0, GL_RG, GL_UNSIGNED_BYTE, map.cells_.data());
        map.texture_width_ = map.width_, map.texture_height_ = map.height_;
        map.changed_ = false;
    }
    const ImDrawData* frame = ImGui::GetDrawData();
    const ImVec2 origin = frame->DisplayPos, size = frame->DisplaySize, scale = frame->FramebufferScale;
    const auto x = [&](float at) { return (at - origin.x) / size.x * 2 - 1; };
    const auto y = [&](float at) { return 1 - (at - origin.y) / size.y * 2; };
    const ImVec4 clip = command->ClipRect;
    glEnable(GL_SCISSOR_TEST);
    glScissor(static_cast<GLint>((clip.x - origin.x) * scale.x),
              static_cast<GLint>((size.y - (clip.w - origin.y)) * scale.y),
              static_cast<GLsizei>(std::max(0.0f, (clip.z - clip.x) * scale.x)),
              static_cast<GLsizei>(std::max(0.0f, (clip.w - clip.y) * scale.y)));
    glUseProgram(shared.program);
    glBindVertexArray(shared.vertices);
    glDisable(GL_BLEND);
    glUniform4f(shared.rect, x(map.from_.x), y(map.from_.y), x(map.to_.x), y(map.to_.y));
    glDrawArrays(GL_TRIANGLE_STRIP, 0, 4);
}

void release_heatmaps() {
    if (shared.program == 0) return;
    glDeleteProgram(shared.program);
    glDeleteVertexArrays(1, &shared.vertices);
    shared = {};
}

} // namespace fathom::viewer::ui
