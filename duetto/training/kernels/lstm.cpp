// One LSTM layer over a whole sequence, forward and backward, for small batches on one core.
//
// Hochreiter and Schmidhuber, "Long Short-Term Memory", Neural Computation 9(8), 1997; with the forget gate of Gers,
// Schmidhuber and Cummins, "Learning to Forget", Neural Computation 12(10), 2000. Gates in torch's order: i, f, g, o.
//
// All matrix products run through one register tile, as in Goto and van de Geijn, "Anatomy of High-Performance Matrix
// Multiplication", ACM TOMS 34(3), 2008. With 8 rows a tile reads each weight once from the second-level cache for 8
// multiply-adds, which is as fast as a core computes, so nothing is blocked further.
//
// Layout (H and D are rounded up to whole vectors, with zeros; a row ends in one vector that is never read, or rows
// a power of two apart would fall into the same few cache lines):
//   rows    [T][b][H | D | vector]   the state before the step, then its input
//   gates   [T][b][4H | vector]      i, f, g, o after their non-linearity
//   cells   [T][b][H]                after the step
//   squash  [T][b][H]                tanh of the cells
// The unit that pads H stays zero: its weights are zero, so its cell is sigmoid(0) tanh(0) = 0, and so are its slopes.
//
// Nothing here allocates, throws or keeps state: any number of threads may call at once.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

namespace {

using Int = std::int64_t;

#if defined(__AVX512F__)
constexpr int kBytes = 64, kRows = 12;  // a vector; the most rows of a tile that stay in registers, two vectors wide
#elif defined(__AVX__)
constexpr int kBytes = 32, kRows = 6;
#elif defined(__aarch64__)
constexpr int kBytes = 16, kRows = 12;
#else
constexpr int kBytes = 16, kRows = 6;
#endif
constexpr Int kDepth = 128;  // rows of slopes gathered before they are multiplied into the weights' gradient

template <class T>
struct Simd {
  static constexpr Int lanes = kBytes / sizeof(T);
  typedef T Vec __attribute__((vector_size(kBytes)));
};
template <class T>
using Vec = typename Simd<T>::Vec;
template <class T>
constexpr Int L = Simd<T>::lanes;

Int up(Int n, Int multiple) { return (n + multiple - 1) / multiple * multiple; }

template <class T>
Vec<T> load(const T* from) {
  Vec<T> v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

template <class T>
void store(T* to, Vec<T> v) {
  std::memcpy(to, &v, sizeof v);
}

// The first n lanes, the others zero.
template <class T>
__attribute__((noinline, cold)) Vec<T> load_part(const T* from, Int n) {
  Vec<T> v{};
  std::memcpy(&v, from, n * sizeof(T));
  return v;
}

template <class T>
Vec<T> load(const T* from, Int n) {
  return n < L<T> ? load_part(from, n) : load(from);
}

template <class T>
__attribute__((noinline, cold)) void store_part(T* to, Vec<T> v, Int n) {
  std::memcpy(to, &v, n * sizeof(T));
}

template <class T>
void store(T* to, Vec<T> v, Int n) {
  n < L<T> ? store_part(to, v, n) : store(to, v);
}

// ------------------------------------------------------------------------------------------------ non-linearities

using Floats = Vec<float>;
typedef std::int32_t Ints __attribute__((vector_size(kBytes)));

// 2^n and expm1(r) of x = n log 2 + r, |r| <= log(2) / 2; the polynomial is that of expf in Moshier's Cephes.
// x must lie in [-87, 88]; NaN stays NaN.
std::pair<Floats, Floats> parts(Floats x) {
  const float magic = 12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
  const Floats shifted = x * 1.44269504088896341f + magic;
  const Floats n = shifted - magic;
  const Floats r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  Floats p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  const Ints power = ((Ints)shifted - 0x4b400000 + 127) << 23;  // 0x4b400000: the bits of magic
  return {(Floats)power, p * (r * r) + r};
}

Floats clamp(Floats x, float low, float high) {
  const Floats lows = Floats{} + low, highs = Floats{} + high;
  x = x < lows ? lows : x;
  return x > highs ? highs : x;
}

Floats sigmoid(Floats x) {
  const auto [s, p] = parts(clamp(-x, -87.0f, 87.0f));
  return 1.0f / (s * p + (s + 1.0f));
}

// expm1(2x) / (expm1(2x) + 2): no digits are lost about zero.
Floats tanh_of(Floats x) {
  const auto [s, p] = parts(2.0f * clamp(x, -10.0f, 10.0f));
  const Floats m = s * p + (s - 1.0f);
  return m / (m + 2.0f);
}

Vec<double> sigmoid(Vec<double> x) {
  for (Int i = 0; i < L<double>; i++) x[i] = 1 / (1 + std::exp(-x[i]));
  return x;
}

Vec<double> tanh_of(Vec<double> x) {
  for (Int i = 0; i < L<double>; i++) x[i] = std::tanh(x[i]);
  return x;
}

// In loops of their own, where their constants stay in registers.
template <class T>
__attribute__((noinline)) void sigmoids(const T* from, T* to, Int n) {
  for (Int j = 0; j < n; j += L<T>) store(to + j, sigmoid(load(from + j)));
}

template <class T>
__attribute__((noinline)) void tanhs(const T* from, T* to, Int n) {
  for (Int j = 0; j < n; j += L<T>) store(to + j, tanh_of(load(from + j)));
}

// ------------------------------------------------------------------------------------------------ matrix products

// A matrix cut into panels two vectors wide: entry (k, column) lies at panel * (column / 2L) + row * k + column % 2L.
template <class T>
struct Panels {
  const T* data;
  Int panel, row;
};

// c = start + a b for R rows and V vectors of columns. Entry (r, k) of a lies at a_row * r + a_col * k.
template <class T, int R, int V>
__attribute__((always_inline)) inline void tile(T* c, Int c_row, const T* start, Int start_row, const T* a, Int a_row,
                                                Int a_col, Panels<T> b, Int K) {
  Vec<T> sum[R][V] = {};
  for (Int k = 0; k < K; k++) {
    Vec<T> w[V];
    UNROLL for (int v = 0; v < V; v++) w[v] = load(b.data + v / 2 * b.panel + v % 2 * L<T>);
    UNROLL for (int r = 0; r < R; r++) {
      const T s = a[a_row * r];
      UNROLL for (int v = 0; v < V; v++) sum[r][v] += s * w[v];
    }
    a += a_col, b.data += b.row;
  }
  UNROLL for (int r = 0; r < R; r++) UNROLL for (int v = 0; v < V; v++)
      store(c + r * c_row + v * L<T>, load(start + r * start_row + v * L<T>) + sum[r][v]);
}

// The same for any number of vectors; the fewer the rows, the wider the tile, or additions would wait for each other.
template <class T, int R>
void strip(Int vectors, T* c, Int c_row, const T* start, Int start_row, const T* a, Int a_row, Int a_col, Panels<T> b,
           Int K) {
  constexpr int wide = R * 8 <= 2 * kRows ? 8 : R * 4 <= 2 * kRows ? 4 : 2;
  const auto take = [&](auto width) {
    constexpr int V = decltype(width)::value;
    tile<T, R, V>(c, c_row, start, start_row, a, a_row, a_col, b, K);
    vectors -= V, c += V * L<T>, start += V * L<T>, b.data += V / 2 * b.panel;
  };
  while (vectors >= wide) take(std::integral_constant<int, wide>{});
  while (vectors >= 2) take(std::integral_constant<int, 2>{});
  if (vectors) take(std::integral_constant<int, 1>{});
}

template <class T, int R = kRows, class... Args>
void strip_of(Int rows, Args... args) {
  if (rows == R) return strip<T, R>(args...);
  if constexpr (R > 1) strip_of<T, R - 1>(rows, args...);
}

// The same for any number of rows, in strips of nearly equal height.
template <class T>
void multiply(Int rows, Int vectors, T* c, Int c_row, const T* start, Int start_row, const T* a, Int a_row, Int a_col,
              Panels<T> b, Int K) {
  for (Int left = (rows + kRows - 1) / kRows; left; left--) {
    const Int now = (rows + left - 1) / left;
    strip_of<T>(now, vectors, c, c_row, start, start_row, a, a_row, a_col, b, K);
    rows -= now, c += now * c_row, start += now * start_row, a += now * a_row;
  }
}

// ------------------------------------------------------------------------------------------------------ the layer

template <class T>
struct Shape {
  Int b, steps, D, H;
  Int Hp = up(H, L<T>), Dp = up(D, L<T>);
  Int row = Hp + Dp + L<T>, gate = 4 * Hp + L<T>;
  Int depth = b < kDepth ? kDepth / b : 1;  // steps whose slopes are gathered
  Int forward_panel = 2 * L<T> * (Hp + D), backward_panel = 2 * L<T> * 4 * Hp;
  Int forward_weights = up(4 * Hp, 2 * L<T>) / (2 * L<T>)*forward_panel;
  Int backward_weights = up(Hp + Dp, 2 * L<T>) / (2 * L<T>)*backward_panel;
  // How many numbers the caller provides.
  Int kept = steps * b * (row + gate + 2 * Hp);
  Int forward = forward_weights + 4 * Hp;
  Int backward = backward_weights + depth * b * gate + b * row + b * Hp + 4 * Hp + 4 * Hp * (Hp + L<T>)+D * gate + row;
};

// What the forward pass keeps for the backward pass.
template <class T>
struct Kept {
  T *rows, *gates, *cells, *squash;
  Kept(const Shape<T>& n, T* at)
      : rows(at),
        gates(rows + n.steps * n.b * n.row),
        cells(gates + n.steps * n.b * n.gate),
        squash(cells + n.steps * n.b * n.Hp) {}
};

// Calls at(row of the caller's [4H], row of ours) for every unit of every gate.
template <class T, class At>
void each_row(const Shape<T>& n, At at) {
  for (Int gate = 0; gate < 4; gate++)
    for (Int unit = 0; unit < n.H; unit++) at(gate * n.H + unit, gate * n.Hp + unit);
}

template <class T>
void forward(const Shape<T>& n, const T* x, const T* w_ih, const T* w_hh, const T* b_ih, const T* b_hh, T* out,
             T* h_last, T* c_last, T* kept, T* scratch) {
  const Kept<T> keep(n, kept);
  T *weights = scratch, *bias = weights + n.forward_weights;
  if (n.H < n.Hp) std::memset(scratch, 0, n.forward * sizeof(T));
  each_row(n, [&](Int from, Int to) {
    T* column = weights + to / (2 * L<T>)*n.forward_panel + to % (2 * L<T>);
    for (Int k = 0; k < n.H; k++) column[2 * L<T> * k] = w_hh[from * n.H + k];
    for (Int k = 0; k < n.D; k++) column[2 * L<T> * (n.Hp + k)] = w_ih[from * n.D + k];
    bias[to] = b_ih[from] + b_hh[from];
  });
  for (Int t = 0; t < n.steps; t++)
    for (Int r = 0; r < n.b; r++) {
      T* row = keep.rows + (t * n.b + r) * n.row;
      if (t == 0) std::memset(row, 0, n.Hp * sizeof(T));
      std::memcpy(row + n.Hp, x + (r * n.steps + t) * n.D, n.D * sizeof(T));
    }
  for (Int t = 0; t < n.steps; t++) {
    const Int skip = t ? 0 : n.Hp;  // the first state is zero
    multiply<T>(n.b, 4 * n.Hp / L<T>, keep.gates + t * n.b * n.gate, n.gate, bias, 0,
                keep.rows + t * n.b * n.row + skip, n.row, 1, {weights + 2 * L<T> * skip, n.forward_panel, 2 * L<T>},
                n.Hp + n.D - skip);
    T *cells = keep.cells + t * n.b * n.Hp, *squash = keep.squash + t * n.b * n.Hp;
    for (Int r = 0; r < n.b; r++) {
      T *gates = keep.gates + (t * n.b + r) * n.gate, *i = gates, *f = gates + n.Hp, *g = gates + 2 * n.Hp;
      for (Int gate = 0; gate < 4; gate++)  // an infinite input times a zero weight is not zero
        for (Int j = n.H; j < n.Hp; j++) gates[gate * n.Hp + j] = 0;
      sigmoids(i, i, 2 * n.Hp);
      tanhs(g, g, n.Hp);
      sigmoids(g + n.Hp, g + n.Hp, n.Hp);
      T *now = cells + r * n.Hp, *before = now - n.b * n.Hp;
      for (Int j = 0; j < n.Hp; j += L<T>) {
        Vec<T> c = load(i + j) * load(g + j);
        if (t) c += load(f + j) * load(before + j);
        store(now + j, c);
      }
    }
    tanhs(cells, squash, n.b * n.Hp);
    for (Int r = 0; r < n.b; r++) {
      const T *o = keep.gates + (t * n.b + r) * n.gate + 3 * n.Hp, *s = squash + r * n.Hp;
      T *to = out + (r * n.steps + t) * n.H, *next = keep.rows + ((t + 1) * n.b + r) * n.row;
      for (Int j = 0; j < n.Hp; j += L<T>) {
        const Vec<T> h = load(o + j) * load(s + j);
        if (t + 1 < n.steps) store(next + j, h);
        store(to + j, h, n.H - j);
      }
    }
  }
  for (Int r = 0; r < n.b; r++) {
    std::memcpy(h_last + r * n.H, out + (r * n.steps + n.steps - 1) * n.H, n.H * sizeof(T));
    std::memcpy(c_last + r * n.H, keep.cells + ((n.steps - 1) * n.b + r) * n.Hp, n.H * sizeof(T));
  }
}

// Gradients that nobody sends (d_out, d_h_last, d_c_last) or wants (d_x; d_w_ih with d_w_hh) are null.
template <class T>
void backward(const Shape<T>& n, const T* d_out, const T* d_h_last, const T* d_c_last, const T* w_ih, const T* w_hh,
              T* kept, T* d_x, T* d_w_ih, T* d_w_hh, T* d_b, T* scratch) {
  const Kept<T> keep(n, kept);
  T *weights = scratch, *all_slopes = weights + n.backward_weights, *d_rows = all_slopes + n.depth * n.b * n.gate,
    *d_cell = d_rows + n.b * n.row, *d_bias = d_cell + n.b * n.Hp, *d_weights = d_bias + 4 * n.Hp,
    *d_inputs = d_weights + 4 * n.Hp * (n.Hp + L<T>), *zeros = d_inputs + n.D * n.gate;
  if (n.H < n.Hp) std::memset(weights, 0, n.backward_weights * sizeof(T));
  std::memset(d_rows, 0, (scratch + n.backward - d_rows) * sizeof(T));
  const auto pack = [&](const T* from, T* row, Int columns, Int first) {
    for (Int k = 0; k < columns; k += L<T>) {
      const Int to = first + k;
      store(row + to / (2 * L<T>)*n.backward_panel + to % (2 * L<T>), load(from + k, columns - k));
    }
  };
  each_row(n, [&](Int from, Int to) {
    pack(w_hh + from * n.H, weights + 2 * L<T> * to, n.H, 0);
    pack(w_ih + from * n.D, weights + 2 * L<T> * to, n.D, n.Hp);
  });
  for (Int r = 0; r < n.b; r++)
    for (Int j = 0; j < n.H; j += L<T>) {
      if (d_h_last) store(d_rows + r * n.row + j, load(d_h_last + r * n.H + j, n.H - j));
      if (d_c_last) store(d_cell + r * n.Hp + j, load(d_c_last + r * n.H + j, n.H - j));
    }
  for (Int t = n.steps - 1, slot = 0, gathered = 0; t >= 0; t--) {
    if (slot-- == 0) {
      slot = t < n.depth ? t : n.depth - 1;
      gathered = slot + 1;
    }
    T* slopes = all_slopes + slot * n.b * n.gate;
    for (Int r = 0; r < n.b; r++) {
      const Int at = t * n.b + r;
      const T *i_row = keep.gates + at * n.gate, *squash = keep.squash + at * n.Hp,
              *before = keep.cells + (at - n.b) * n.Hp;
      const T* d_out_row = d_out ? d_out + (r * n.steps + t) * n.H : nullptr;
      T *d_h_row = d_rows + r * n.row, *d_c_row = d_cell + r * n.Hp, *slope = slopes + r * n.gate;
      for (Int j = 0; j < n.Hp; j += L<T>) {
        const T* gates = i_row + j;
        const Vec<T> i = load(gates), f = load(gates + n.Hp), g = load(gates + 2 * n.Hp), o = load(gates + 3 * n.Hp);
        const Vec<T> s = load(squash + j);
        Vec<T> d_h = load(d_h_row + j);
        if (d_out) d_h += load(d_out_row + j, n.H - j);
        const Vec<T> d_c = load(d_c_row + j) + d_h * o * (T(1) - s * s);
        const Vec<T> c = t ? load(before + j) : Vec<T>{};
        const auto keep_slope = [&](Int gate, Vec<T> value) {
          store(slope + gate * n.Hp + j, value);
          T* total = d_bias + gate * n.Hp + j;
          store(total, load(total) + value);
        };
        keep_slope(0, d_c * g * i * (T(1) - i));
        keep_slope(1, d_c * c * f * (T(1) - f));
        keep_slope(2, d_c * i * (T(1) - g * g));
        keep_slope(3, d_h * s * o * (T(1) - o));
        store(d_c_row + j, d_c * f);
      }
    }
    if (t || d_x)
      multiply<T>(n.b, (n.Hp + (d_x ? n.Dp : 0)) / L<T>, d_rows, n.row, zeros, 0, slopes, n.gate, 1,
                  {weights, n.backward_panel, 2 * L<T>}, 4 * n.Hp);
    if (d_x)
      for (Int r = 0; r < n.b; r++)
        std::memcpy(d_x + (r * n.steps + t) * n.D, d_rows + r * n.row + n.Hp, n.D * sizeof(T));
    if (slot == 0 && d_w_hh) {
      const T* rows = keep.rows + t * n.b * n.row;
      multiply<T>(4 * n.Hp, n.Hp / L<T>, d_weights, n.Hp + L<T>, d_weights, n.Hp + L<T>, slopes, 1, n.gate,
                  {rows, 2 * L<T>, n.row}, gathered * n.b);
      multiply<T>(n.D, 4 * n.Hp / L<T>, d_inputs, n.gate, d_inputs, n.gate, rows + n.Hp, 1, n.row,
                  {slopes, 2 * L<T>, n.gate}, gathered * n.b);
    }
  }
  each_row(n, [&](Int to, Int from) {
    d_b[to] = d_bias[from];
    if (!d_w_hh) return;
    std::memcpy(d_w_hh + to * n.H, d_weights + from * (n.Hp + L<T>), n.H * sizeof(T));
    for (Int k = 0; k < n.D; k++) d_w_ih[to * n.D + k] = d_inputs[k * n.gate + from];
  });
}

}  // namespace

#define DUETTO_LSTM(T, name)                                                                                        \
  extern "C" void sizes_##name(Int b, Int steps, Int D, Int H, Int* out) {                                          \
    const Shape<T> n{b, steps, D, H};                                                                               \
    out[0] = n.kept, out[1] = n.forward, out[2] = n.backward;                                                       \
  }                                                                                                                 \
  extern "C" void forward_##name(Int b, Int steps, Int D, Int H, const T* x, const T* w_ih, const T* w_hh,          \
                                 const T* b_ih, const T* b_hh, T* out, T* h_last, T* c_last, T* kept, T* scratch) { \
    forward<T>({b, steps, D, H}, x, w_ih, w_hh, b_ih, b_hh, out, h_last, c_last, kept, scratch);                    \
  }                                                                                                                 \
  extern "C" void backward_##name(Int b, Int steps, Int D, Int H, const T* d_out, const T* d_h_last,                \
                                  const T* d_c_last, const T* w_ih, const T* w_hh, T* kept, T* d_x, T* d_w_ih,      \
                                  T* d_w_hh, T* d_b, T* scratch) {                                                  \
    backward<T>({b, steps, D, H}, d_out, d_h_last, d_c_last, w_ih, w_hh, kept, d_x, d_w_ih, d_w_hh, d_b, scratch);  \
  }
DUETTO_LSTM(float, float32)
DUETTO_LSTM(double, float64)
