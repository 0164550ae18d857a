package lwp

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"
)

// text returns what is in l.
func (l *Line) text() string { return string(l.all()[:l.n]) }

func checkLine(t *testing.T, l *Line, want string) {
	t.Helper()
	if got := l.text(); got != want {
		t.Errorf("got %.200q, want %.200q", got, want)
	}
	l.Reset()
}

func TestLineFormatsWrongNumbers(t *testing.T) {
	var l Line
	n := 100_000
	if testing.Short() {
		n = 5000
	}
	uints := []uint64{0, 1, 9, 10, 15, 16, 99, 100, math.MaxInt64, math.MaxInt64 + 1, math.MaxUint64, math.MaxUint32}
	floats := []float64{0, math.Copysign(0, -1), 1, -1.5, 0.1, 1e5, 123456, 1e6, 1e20, 1e21, 1e22, 1e-4, 1e-5, math.Pi,
		math.MaxFloat64, -math.MaxFloat64, math.SmallestNonzeroFloat64, -2.2250738585072014e-308, 2.225073858507201e-308,
		math.Inf(1), math.Inf(-1), math.NaN(), 5e-324, 1 << 53, 1<<53 + 2, 9007199254740993, 8.41e21, 2.3509887016445750e-38}
	durs := []time.Duration{0, 1, -1, 999, 1000, 1001, 1100, 999_999, 1e6, 1_000_001, 999_999_999, 1e9, 1_500_000_000, 59_999_999_999,
		time.Minute, time.Minute + 1, time.Hour, time.Hour + time.Second, 100*time.Hour + 3*time.Millisecond, math.MaxInt64, math.MinInt64, -90 * time.Second}
	// Where digit generation goes wrong: powers of two and ten, their
	// neighbours, halves, denormals, few digits, few bits.
	for e := -1074; e < 1024; e++ {
		v := math.Ldexp(1, e)
		floats = append(floats, v, math.Nextafter(v, 0), math.Nextafter(v, math.Inf(1)), math.Ldexp(rand.Float64(), e), math.Ldexp(float64(rand.IntN(1<<20)), e))
	}
	for e := -330; e < 310; e++ {
		v, _ := strconv.ParseFloat("1e"+strconv.Itoa(e), 64)
		w, _ := strconv.ParseFloat(fmt.Sprintf("%de%d", rand.IntN(1000), e-2), 64)
		floats = append(floats, v, math.Nextafter(v, 0), math.Nextafter(v, math.Inf(1)), w, 5*v, v/2)
	}
	for range n / 10 {
		floats = append(floats, float64(rand.IntN(2000))/8, float64(rand.IntN(1e6))/1000, float64(rand.Uint64()>>rand.IntN(64)), math.Float64frombits(rand.Uint64()>>(12+rand.IntN(52))))
	}
	for range n {
		u := rand.Uint64()
		uints = append(uints, u>>rand.IntN(64))
		floats = append(floats, math.Float64frombits(u))
		durs = append(durs, time.Duration(int64(u)>>rand.IntN(64)))
	}
	for _, u := range uints {
		checkLine(t, l.Uint(u), strconv.FormatUint(u, 10))
		checkLine(t, l.Int(int64(u)), strconv.FormatInt(int64(u), 10))
		checkLine(t, l.Int(-int64(u)), strconv.FormatInt(-int64(u), 10))
		checkLine(t, l.Hex(u), fmt.Sprintf("%#x", u))
	}
	for _, f := range floats {
		checkLine(t, l.Float(f), fmt.Sprint(f))
	}
	for _, d := range durs {
		checkLine(t, l.Dur(d), d.String())
	}
	checkLine(t, l.Ptr(nil), "0x0")
	checkLine(t, l.Ptr(unsafe.Pointer(&l)), fmt.Sprintf("%p", &l))
}

func TestLineRunsOverItsEnd(t *testing.T) {
	for fill := lineRoom - 45; fill <= lineRoom; fill++ {
		head := strings.Repeat("x", fill)
		var l Line
		check := func(_ *Line, want string) {
			t.Helper()
			if l.Len() >= len(l.all()) {
				t.Errorf("after %d bytes %s leaves no room for the newline", fill, want)
				l.n = 0
			}
			checkLine(t, &l, head+want)
			l.Str(head)
		}
		l.Str(head)
		check(l.Byte('1'), "1")
		check(l.Str("12"), "12")
		check(l.Int(math.MinInt64), "-9223372036854775808")
		check(l.Uint(math.MaxUint64), "18446744073709551615")
		check(l.Hex(math.MaxUint64), "0xffffffffffffffff")
		check(l.Float(-2.2250738585072014e-308), "-2.2250738585072014e-308")
		check(l.Bool(false), "false")
		check(l.Dur(math.MinInt64), "-2562047h47m16.854775808s")
		check(l.Quote("\x00\x01\x02"), `"\x00\x01\x02"`)
		l.Reset()
	}
}

func TestLineQuotesWrong(t *testing.T) {
	var l Line
	alphabet := []string{"a", "plain", "\x00", "\n", "\"", "\\", "é", "\u00ad", "世", "\U0001f600", "\U0010ffff", "\xff", "\xe2\x82", "\x80", "\xf0\x9f\x98", "\x7f", "`", "'"}
	for range 20_000 {
		var s string
		for range rand.IntN(30) {
			s += alphabet[rand.IntN(len(alphabet))]
		}
		checkLine(t, l.Quote(s), strconv.Quote(s))
	}
	long := strings.Repeat("\x80\x80\x80\x80\x80世", 2000)
	checkLine(t, l.Quote(long), strconv.Quote(long))
}
