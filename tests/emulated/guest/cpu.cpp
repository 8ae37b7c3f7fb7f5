// The instructions that quantfx and oneDNN rely on, one by one, against plain C++: what is wrong
// here is wrong in the emulator. Compiled for the emulated CPU, so it has what that CPU has.
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstring>

static uint8_t a[1024];
static int8_t b[1024];

static void fill() {
    for (int k = 0; k < 1024; ++k) {
        a[k] = (uint8_t)(255 - k * (k % 3));
        b[k] = (int8_t)(k % 2 ? -127 + k % 5 : 127 - k % 7);
    }
}

static int32_t four(int start, int32_t sum) {
    for (int k = start; k < start + 4; ++k) sum += a[k] * b[k];
    return sum;
}

static void say(const char* name, int wrong) { std::printf("%s: %d wrong\n", name, wrong); }

#ifdef __AVX512VNNI__
static void zmm() {
    int32_t sums[16];
    _mm512_storeu_si512(sums, _mm512_dpbusd_epi32(_mm512_set1_epi32(7), _mm512_loadu_si512(a),
                                                  _mm512_loadu_si512(b)));
    int wrong = 0;
    for (int k = 0; k < 16; ++k) wrong += sums[k] != four(4 * k, 7);
    say("vpdpbusd, 512 bits", wrong);
}

// Displacements of EVEX are in units, here of a byte and of a word.
static void insert() {
    uint8_t to[16];
    asm volatile(
        "vpxorq %%xmm17, %%xmm17, %%xmm17\n"
        "vpinsrb $2, 3(%0), %%xmm17, %%xmm17\n"
        "vpinsrw $0, 2(%0), %%xmm17, %%xmm17\n"
        "vmovdqu8 %%xmm17, (%1)"
        :
        : "r"(a), "r"(to)
        : "memory", "xmm17");
    say("vpinsrb and vpinsrw, EVEX", (to[0] != a[2]) + (to[1] != a[3]) + (to[2] != a[3]));
}

static void gather() {
    int32_t at[16], found[16], wrong = 0;
    for (int k = 0; k < 16; ++k) at[k] = 60 * k;
    asm volatile(
        "vmovdqu32 (%0), %%zmm20\n"
        "kxnorw %%k2, %%k2, %%k2\n"
        "vpgatherdd (%1, %%zmm20, 1), %%zmm17 %{%%k2%}\n"
        "vmovdqu32 %%zmm17, (%2)"
        :
        : "r"(at), "r"(a), "r"(found)
        : "memory", "xmm17", "xmm20", "k2");
    for (int k = 0; k < 16; ++k) wrong += std::memcmp(&found[k], a + at[k], 4) != 0;
    say("vpgatherdd by a register from 16 on", wrong);
}
#endif

#ifdef __AVXVNNI__
static void ymm() {
    int32_t sums[8];
    __m256i x = _mm256_loadu_si256((const __m256i*)a), y = _mm256_loadu_si256((const __m256i*)b);
    _mm256_storeu_si256((__m256i*)sums, _mm256_dpbusd_avx_epi32(_mm256_set1_epi32(7), x, y));
    int wrong = 0;
    for (int k = 0; k < 8; ++k) wrong += sums[k] != four(4 * k, 7);
    say("vpdpbusd, VEX", wrong);
}
#endif

#ifdef __AMX_INT8__
// Rows of 64 bytes of a, times columns of b that are stored four values at a time.
static void tiles() {
    if (syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18)) {
        say("tdpbusd: no permission", 1);
        return;
    }
    struct alignas(64) {
        uint8_t palette, start, unused[14];
        uint16_t width[16];
        uint8_t rows[16];
    } shape = {};
    shape.palette = 1;
    for (int k = 0; k < 3; ++k) shape.width[k] = 64, shape.rows[k] = 16;
    int32_t sums[16][16] = {};
    asm volatile("" ::: "memory");  // g++ does not know what the next instructions read
    _tile_loadconfig(&shape);
    _tile_zero(0);
    _tile_loadd(1, a, 64);
    _tile_loadd(2, b, 64);
    _tile_dpbusd(0, 1, 2);
    _tile_stored(0, sums, 64);
    _tile_release();
    asm volatile("" ::: "memory");
    int wrong = 0;
    for (int m = 0; m < 16; ++m)
        for (int n = 0; n < 16; ++n) {
            int32_t sum = 0;
            for (int k = 0; k < 64; ++k) sum += a[m * 64 + k] * b[k / 4 * 64 + 4 * n + k % 4];
            wrong += sum != sums[m][n];
        }
    say("tdpbusd", wrong);
}
#endif

int main() {
    fill();
#ifdef __AVX512VNNI__
    zmm();
    insert();
    gather();
#endif
#ifdef __AVXVNNI__
    ymm();
#endif
#ifdef __AMX_INT8__
    tiles();
#endif
}
