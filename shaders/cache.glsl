// The paged cache. A sequence's page table lists pages of PAGE_TOKENS rows. A row of latent attention is the
// normed latent, padded to four numbers, then the rotated shared key, padded likewise; of plain attention the
// rotated keys of all heads, each padded so, then their values.
uint pad4(uint n) { return (n + 3u) & ~3u; }

uvec2 cache_row(uvec2 cache, uvec2 pages, uint sequence, uint position, uint max_pages, uint page_bytes,
                uint row_bytes) {
    const uint page = WordsIn(pages).v[sequence * max_pages + position / PAGE_TOKENS];
    return at(at(cache, page, page_bytes), (position % PAGE_TOKENS) * row_bytes);
}

// What attention over the cache covers: the positions up to and with a token's own; in pages, and in pages of
// each part of at most n_parts.
uint pages_of(uint length) { return (length + PAGE_TOKENS - 1u) / PAGE_TOKENS; }
uint part_pages(uint pages, uint n_parts) { return (pages + n_parts - 1u) / n_parts; }
