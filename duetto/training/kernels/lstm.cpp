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
#include <utility>

namespace {

#if defined(__AVX512F__)
constexpr int kBytes = 64, kRows = 12;  // a vector; the most rows of a tile that stay in registers, two vectors wide
#elif defined(__AVX__)
constexpr int kBytes = 32, kRows = 6;
#elif defined(__aarch64__)
constexpr int kBytes = 16, kRows = 12;
#else
constexpr int kBytes = 16, kRows = 6;
#endif
constexpr long kDepth = 128;  // rows of slopes gathered before they are multiplied into the weights' gradient

template <class T>
struct Simd {
  static constexpr long lanes = kBytes / sizeof(T);
  typedef T Vec __attribute__((vector_size(kBytes)));
};
template <class T>
using Vec = typename Simd<T>::Vec;
template <class T>
constexpr long L = Simd<T>::lanes;

long up(long n, long multiple) { return (n + multiple - 1) / multiple * multiple; }

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
Vec<T> load(const T* from, long n) {
  if (n >= L<T>) return load(from);
  Vec<T> v{};
  std::memcpy(&v, from, n * sizeof(T));
  return v;
}

template <class T>
void store(T* to, Vec<T> v, long n) {
  if (n >= L<T>) return store(to, v);
  std::memcpy(to, &v, n * sizeof(T));
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
  for (long i = 0; i < L<double>; i++) x[i] = 1 / (1 + std::exp(-x[i]));
  return x;
}

Vec<double> tanh_of(Vec<double> x) {
  for (long i = 0; i < L<double>; i++) x[i] = std::tanh(x[i]);
  return x;
}

// ------------------------------------------------------------------------------------------------ matrix products

// A matrix cut into panels two vectors wide: entry (k, column) lies at panel * (column / 2L) + row * k + column % 2L.
template <class T>
struct Panels {
  const T* data;
  long panel, row;
};

// c = start + a b for R rows and V vectors of columns. Entry (r, k) of a lies at a_row * r + a_col * k.
template <class T, int R, int V>
void tile(T* c, long c_row, const T* start, long start_row, const T* a, long a_row, long a_col, Panels<T> b, long K) {
  Vec<T> sum[R][V];
  for (int r = 0; r < R; r++)
    for (int v = 0; v < V; v++) sum[r][v] = load(start + r * start_row + v * L<T>);
  for (long k = 0; k < K; k++) {
    Vec<T> w[V];
    for (int v = 0; v < V; v++) w[v] = load(b.data + v / 2 * b.panel + b.row * k + v % 2 * L<T>);
    for (int r = 0; r < R; r++) {
      const T s = a[a_row * r + a_col * k];
      for (int v = 0; v < V; v++) sum[r][v] += s * w[v];
    }
  }
  for (int r = 0; r < R; r++)
    for (int v = 0; v < V; v++) store(c + r * c_row + v * L<T>, sum[r][v]);
}

// The same for any number of vectors; the fewer the rows, the wider the tile, or additions would wait for each other.
template <class T, int R>
void strip(long vectors, T* c, long c_row, const T* start, long start_row, const T* a, long a_row, long a_col,
           Panels<T> b, long K) {
  constexpr int wide = R * 8 <= 2 * kRows ? 8 : R * 4 <= 2 * kRows ? 4 : 2;
  const auto take = [&](auto run, int width) {
    run(c, c_row, start, start_row, a, a_row, a_col, b, K);
    vectors -= width, c += width * L<T>, start += width * L<T>, b.data += width / 2 * b.panel;
  };
  while (vectors >= wide) take(tile<T, R, wide>, wide);
  while (vectors >= 2) take(tile<T, R, 2>, 2);
  if (vectors) take(tile<T, R, 1>, 1);
}

template <class T, int R = kRows, class... Args>
void strip_of(long rows, Args... args) {
  if (rows == R) return strip<T, R>(args...);
  if constexpr (R > 1) strip_of<T, R - 1>(rows, args...);
}

// The same for any number of rows, in strips of nearly equal height.
template <class T>
void multiply(long rows, long vectors, T* c, long c_row, const T* start, long start_row, const T* a, long a_row,
              long a_col, Panels<T> b, long K) {
  for (long left = (rows + kRows - 1) / kRows; left; left--) {
    const long now = (rows + left - 1) / left;
    strip_of<T>(now, vectors, c, c_row, start, start_row, a, a_row, a_col, b, K);
    rows -= now, c += now * c_row, start += now * start_row, a += now * a_row;
  }
}

// ------------------------------------------------------------------------------------------------------ the layer

template <class T>
struct Shape {
  long b, steps, D, H;
  long Hp = up(H, L<T>), Dp = up(D, L<T>);
  long row = Hp + Dp + L<T>, gate = 4 * Hp + L<T>;
  long depth = b < kDepth ? kDepth / b : 1;  // steps whose slopes are gathered
  long forward_panel = 2 * L<T> * (Hp + D), backward_panel = 2 * L<T> * 4 * Hp;
  long forward_weights = up(4 * Hp, 2 * L<T>) / (2 * L<T>)*forward_panel;
  long backward_weights = up(Hp + Dp, 2 * L<T>) / (2 * L<T>)*backward_panel;
  // How many numbers the caller provides.
  long kept = steps * b * (row + gate + 2 * Hp);
  long forward = forward_weights + 4 * Hp;
  long backward = backward_weights + depth * b * gate + b * row + b * Hp + 4 * Hp + 4 * Hp * row + row;
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

// Entry (gate, unit) of a weight [4H][columns] goes to row at(gate, unit); the same for one column of a bias.
template <class T, class At>
void each_row(const Shape<T>& n, At at) {
  for (long gate = 0; gate < 4; gate++)
    for (long unit = 0; unit < n.H; unit++) at(gate * n.H + unit, gate * n.Hp + unit);
}

template <class T>
void forward(const Shape<T>& n, const T* x, const T* w_ih, const T* w_hh, const T* b_ih, const T* b_hh, T* out,
             T* h_last, T* c_last, T* kept, T* scratch) {
  const Kept<T> keep(n, kept);
  T *weights = scratch, *bias = weights + n.forward_weights;
  std::memset(scratch, 0, n.forward * sizeof(T));
  each_row(n, [&](long from, long to) {
    T* column = weights + to / (2 * L<T>) * n.forward_panel + to % (2 * L<T>);
    for (long k = 0; k < n.H; k++) column[2 * L<T> * k] = w_hh[from * n.H + k];
    for (long k = 0; k < n.D; k++) column[2 * L<T> * (n.Hp + k)] = w_ih[from * n.D + k];
    bias[to] = b_ih[from] + b_hh[from];
  });
  for (long t = 0; t < n.steps; t++)
    for (long r = 0; r < n.b; r++) {
      T* row = keep.rows + (t * n.b + r) * n.row;
      if (t == 0) std::memset(row, 0, n.Hp * sizeof(T));
      std::memcpy(row + n.Hp, x + (r * n.steps + t) * n.D, n.D * sizeof(T));
      std::memset(row + n.Hp + n.D, 0, (n.Dp - n.D) * sizeof(T));
    }
  for (long t = 0; t < n.steps; t++) {
    const long skip = t ? 0 : n.Hp;  // the first state is zero
    multiply<T>(n.b, 4 * n.Hp / L<T>, keep.gates + t * n.b * n.gate, n.gate, bias, 0,
                keep.rows + t * n.b * n.row + skip, n.row, 1,
                {weights + 2 * L<T> * skip, n.forward_panel, 2 * L<T>}, n.Hp + n.D - skip);
    for (long r = 0; r < n.b; r++) {
      const long at = t * n.b + r;
      T *gates = keep.gates + at * n.gate, *cells = keep.cells + at * n.Hp;
      for (long j = 0; j < n.Hp; j += L<T>) {
        const Vec<T> i = sigmoid(load(gates + j)), f = sigmoid(load(gates + n.Hp + j));
        const Vec<T> g = tanh_of(load(gates + 2 * n.Hp + j)), o = sigmoid(load(gates + 3 * n.Hp + j));
        const Vec<T> c = t ? f * load(cells + j - n.b * n.Hp) + i * g : i * g;
        const Vec<T> s = tanh_of(c), h = o * s;
        store(gates + j, i), store(gates + n.Hp + j, f), store(gates + 2 * n.Hp + j, g);
        store(gates + 3 * n.Hp + j, o), store(cells + j, c), store(keep.squash + at * n.Hp + j, s);
        if (t + 1 < n.steps) store(keep.rows + (at + n.b) * n.row + j, h);
        store(out + (r * n.steps + t) * n.H + j, h, n.H - j);
        if (t + 1 == n.steps) {
          store(h_last + r * n.H + j, h, n.H - j);
          store(c_last + r * n.H + j, c, n.H - j);
        }
      }
    }
  }
}

// Gradients that nobody sends (d_out, d_h_last, d_c_last) or wants (d_x; d_w_ih with d_w_hh) are null.
template <class T>
void backward(const Shape<T>& n, const T* d_out, const T* d_h_last, const T* d_c_last, const T* w_ih, const T* w_hh,
              T* kept, T* d_x, T* d_w_ih, T* d_w_hh, T* d_b, T* scratch) {
  const Kept<T> keep(n, kept);
  T *weights = scratch, *all_slopes = weights + n.backward_weights, *d_rows = all_slopes + n.depth * n.b * n.gate,
    *d_cell = d_rows + n.b * n.row, *d_bias = d_cell + n.b * n.Hp, *d_weights = d_bias + 4 * n.Hp,
    *zeros = d_weights + 4 * n.Hp * n.row;
  std::memset(scratch, 0, n.backward * sizeof(T));
  const auto pack = [&](const T* from, T* row, long columns, long first) {
    for (long k = 0; k < columns; k += L<T>) {
      const long to = first + k;
      store(row + to / (2 * L<T>) * n.backward_panel + to % (2 * L<T>), load(from + k, columns - k));
    }
  };
  each_row(n, [&](long from, long to) {
    pack(w_hh + from * n.H, weights + 2 * L<T> * to, n.H, 0);
    pack(w_ih + from * n.D, weights + 2 * L<T> * to, n.D, n.Hp);
  });
  for (long r = 0; r < n.b; r++)
    for (long j = 0; j < n.H; j += L<T>) {
      if (d_h_last) store(d_rows + r * n.row + j, load(d_h_last + r * n.H + j, n.H - j));
      if (d_c_last) store(d_cell + r * n.Hp + j, load(d_c_last + r * n.H + j, n.H - j));
    }
  for (long t = n.steps - 1, slot = 0, gathered = 0; t >= 0; t--) {
    if (slot-- == 0) {
      slot = t < n.depth ? t : n.depth - 1;
      gathered = slot + 1;
    }
    T* slopes = all_slopes + slot * n.b * n.gate;
    for (long j = 0; j < n.Hp; j += L<T>) {
      Vec<T> sum[4] = {};
      for (long r = 0; r < n.b; r++) {
        const long at = t * n.b + r;
        const T* gates = keep.gates + at * n.gate + j;
        const Vec<T> i = load(gates), f = load(gates + n.Hp), g = load(gates + 2 * n.Hp), o = load(gates + 3 * n.Hp);
        const Vec<T> s = load(keep.squash + at * n.Hp + j);
        Vec<T> d_h = load(d_rows + r * n.row + j);
        if (d_out) d_h += load(d_out + (r * n.steps + t) * n.H + j, n.H - j);
        const Vec<T> d_c = load(d_cell + r * n.Hp + j) + d_h * o * (T(1) - s * s);
        const Vec<T> before = t ? load(keep.cells + (at - n.b) * n.Hp + j) : Vec<T>{};
        const Vec<T> slope[4] = {d_c * g * i * (T(1) - i), d_c * before * f * (T(1) - f), d_c * i * (T(1) - g * g),
                                 d_h * s * o * (T(1) - o)};
        for (long gate = 0; gate < 4; gate++) {
          sum[gate] += slope[gate];
          store(slopes + r * n.gate + gate * n.Hp + j, slope[gate]);
        }
        store(d_cell + r * n.Hp + j, d_c * f);
      }
      for (long gate = 0; gate < 4; gate++) {
        T* total = d_bias + gate * n.Hp + j;
        store(total, load(total) + sum[gate]);
      }
    }
    if (t || d_x)
      multiply<T>(n.b, (n.Hp + (d_x ? n.Dp : 0)) / L<T>, d_rows, n.row, zeros, 0, slopes, n.gate, 1,
                  {weights, n.backward_panel, 2 * L<T>}, 4 * n.Hp);
    if (d_x)
      for (long r = 0; r < n.b; r++)
        std::memcpy(d_x + (r * n.steps + t) * n.D, d_rows + r * n.row + n.Hp, n.D * sizeof(T));
    if (slot == 0 && d_w_hh)
      multiply<T>(4 * n.Hp, (n.Hp + n.Dp) / L<T>, d_weights, n.row, d_weights, n.row, slopes, 1, n.gate,
                  {keep.rows + t * n.b * n.row, 2 * L<T>, n.row}, gathered * n.b);
  }
  each_row(n, [&](long to, long from) {
    d_b[to] = d_bias[from];
    if (!d_w_hh) return;
    std::memcpy(d_w_hh + to * n.H, d_weights + from * n.row, n.H * sizeof(T));
    std::memcpy(d_w_ih + to * n.D, d_weights + from * n.row + n.Hp, n.D * sizeof(T));
  });
}

}  // namespace

#define DUETTO_LSTM(T, name)                                                                                          \
  extern "C" void sizes_##name(long b, long steps, long D, long H, long* out) {                                       \
    const Shape<T> n{b, steps, D, H};                                                                                 \
    out[0] = n.kept, out[1] = n.forward, out[2] = n.backward;                                                         \
  }                                                                                                                   \
  extern "C" void forward_##name(long b, long steps, long D, long H, const T* x, const T* w_ih, const T* w_hh,        \
                                 const T* b_ih, const T* b_hh, T* out, T* h_last, T* c_last, T* kept, T* scratch) {   \
    forward<T>({b, steps, D, H}, x, w_ih, w_hh, b_ih, b_hh, out, h_last, c_last, kept, scratch);                      \
  }                                                                                                                   \
  extern "C" void backward_##name(long b, long steps, long D, long H, const T* d_out, const T* d_h_last,              \
                                  const T* d_c_last, const T* w_ih, const T* w_hh, T* kept, T* d_x, T* d_w_ih,        \
                                  T* d_w_hh, T* d_b, T* scratch) {                                                    \
    backward<T>({b, steps, D, H}, d_out, d_h_last, d_c_last, w_ih, w_hh, kept, d_x, d_w_ih, d_w_hh, d_b, scratch);    \
  }
DUETTO_LSTM(float, float32)
DUETTO_LSTM(double, float64)
