package lwp

import (
	"math"
	"math/bits"
)

// Floats are formatted here because strconv.AppendFloat stores a slice through
// a pointer, which faults on a thread while the collector marks. The method is
// that of Burger and Dybvig, "Printing Floating-Point Numbers Quickly and
// Accurately" (PLDI 1996), on integers of a fixed size: exact and without
// tables. It takes 0.1 us for short numbers and 7 us at the ends of the range,
// where strconv takes 0.06.

// A big is an unsigned integer, least significant word first. Every operation
// takes how many words are in use.
type big [18]uint64

// shiftIn sets b, which is zero, to x << shift.
func (b *big) shiftIn(x uint64, shift int) {
	b[shift/64] = x << (shift % 64)
	if shift%64 != 0 && shift/64+1 < len(b) {
		b[shift/64+1] = x >> (64 - shift%64)
	}
}

// mul multiplies b by x.
func (b *big) mul(n int, x uint64) {
	var carry uint64
	for i := range b[:n] {
		hi, lo := bits.Mul64(b[i], x)
		var c uint64
		b[i], c = bits.Add64(lo, carry, 0)
		carry = hi + c
	}
}

// scale multiplies b by ten to the power of k.
func (b *big) scale(n, k int) {
	for ; k >= 19; k -= 19 {
		b.mul(n, 1e19)
	}
	for ; k > 0; k-- {
		b.mul(n, 10)
	}
}

// sub subtracts c, which is not greater.
func (b *big) sub(n int, c *big) {
	var borrow uint64
	for i := range b[:n] {
		b[i], borrow = bits.Sub64(b[i], c[i], borrow)
	}
}

// sign returns the sign of a + k*b - c.
func sign(n int, a *big, k uint64, b, c *big) int {
	var carry, borrow, rest uint64
	for i := range a[:n] {
		hi, sum := bits.Mul64(b[i], k)
		sum, c1 := bits.Add64(sum, carry, 0)
		sum, c2 := bits.Add64(sum, a[i], 0)
		carry = hi + c1 + c2
		sum, borrow = bits.Sub64(sum, c[i], borrow)
		rest |= sum
	}
	switch {
	case carry < borrow:
		return -1
	case carry > borrow || rest != 0:
		return 1
	}
	return 0
}

// shortest stores the fewest digits that read back as v, which is positive and
// finite, and of those the nearest to v. v is about 0.ddd times ten to the
// power of point.
func shortest(v float64, digits *[17]byte) (n, point int) {
	const mantBits = 52
	word := math.Float64bits(v)
	f, e := word&(1<<mantBits-1), int(word>>mantBits)
	wide := uint64(1) // the distance to the next float, in distances to the one before
	switch {
	case e == 0:
		e++
	case f == 0 && e > 1:
		wide = 2
		fallthrough
	default:
		f |= 1 << mantBits
	}
	e -= 1023 + mantBits

	// v = r/s; m/s is half the distance to the float before. In units of a
	// quarter of f's last bit all three are integers.
	var r, s, m big
	n = (max(e, -e)+mantBits+16)/64 + 1
	r.shiftIn(f, 2+max(e, 0))
	s.shiftIn(1, 2+max(-e, 0))
	m.shiftIn(2/wide, max(e, 0))
	words := n

	// Scale so that v = r/s * 10^point with r/s in [0.1, 1). The first guess,
	// from the power of two below v, is right or one too low. The constant is
	// log10(2) * 2^22, good for exponents up to 1500.
	point = (e+bits.Len64(f)-1)*1262611>>22 + 1
	if point > 0 {
		s.scale(words, point)
	} else {
		r.scale(words, -point)
		m.scale(words, -point)
	}
	// A float in the middle between v and a neighbour reads back as v only if
	// v is even: the limits belong to the interval or not.
	odd := int(f & 1)
	if sign(words, &r, wide, &m, &s) >= odd {
		point++
	} else {
		r.mul(words, 10)
		m.mul(words, 10)
	}
	for n = 0; ; n++ {
		d := byte('0')
		for sign(words, &r, 0, &r, &s) >= 0 {
			r.sub(words, &s)
			d++
		}
		low := sign(words, &m, 0, &m, &r) >= odd     // d is near enough
		high := sign(words, &r, wide, &m, &s) >= odd // d+1 is
		if low && high {
			half := sign(words, &r, 1, &r, &s)
			high = half > 0 || half == 0 && d&1 != 0
		}
		if high {
			d++
		}
		digits[n] = d
		if low || high {
			return n + 1, point
		}
		r.mul(words, 10)
		m.mul(words, 10)
	}
}

// Float appends v as fmt.Print does: the shortest text that reads back as v.
func (l *Line) Float(v float64) *Line {
	switch {
	case v != v:
		return l.Str("NaN")
	case v > math.MaxFloat64:
		return l.Str("+Inf")
	case v < -math.MaxFloat64:
		return l.Str("-Inf")
	}
	if math.Signbit(v) {
		l.Byte('-')
		v = -v
	}
	if v == 0 {
		return l.Byte('0')
	}
	var d [17]byte
	n, point := shortest(v, &d)
	switch exp := point - 1; {
	case exp < -4 || exp >= 6:
		l.put(d[:1])
		if n > 1 {
			l.Byte('.').put(d[1:n])
		}
		l.Byte('e')
		if exp < 0 {
			l.Byte('-')
			exp = -exp
		} else {
			l.Byte('+')
		}
		if exp < 10 {
			l.Byte('0')
		}
		l.Uint(uint64(exp))
	case point <= 0:
		l.Str("0.").Str("000"[:-point]).put(d[:n])
	case point < n:
		l.put(d[:point]).Byte('.').put(d[point:n])
	default:
		l.put(d[:n]).Str("00000"[:point-n])
	}
	return l
}
