package main

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// Colours have to be seen on white and on black, since a picture cannot tell
// what it is shown on: TestColoursAreSeenOnWhiteAndOnBlack holds that.
const (
	inkText = "#757b83"
	inkGrid = "#8b929b" // thin, and half transparent
)

// palette is the colour of each impl; all others are otherColour.
var palette = map[string]string{
	"fiber": "#d9480f", "lwp": "#2f7fe0", "lwppool": "#2f7fe0",
	"goroutine": "#0b9488", "lockedgoroutine": "#8f6ae0", "pthread": "#b7791f",
	"fcontext": "#c9509b",
}

const otherColour = "#7a828c"

// colour is the same for all variants of an impl, whose names follow a comma.
func colour(impl string) string {
	impl, _, _ = strings.Cut(impl, ",")
	if c, ok := palette[impl]; ok {
		return c
	}
	return otherColour
}

const (
	plotWidth  = 760.0
	plotMargin = 14.0
	letter     = 7.0 // the width of one, on average
)

// A canvas is an SVG that grows downwards.
type canvas struct {
	body   strings.Builder
	height float64
}

// num writes a coordinate; the same on every machine.
func num(v float64) string {
	return strings.TrimSuffix(fmt.Sprintf("%.1f", v), ".0")
}

func (c *canvas) text(x, y float64, anchor, attr, s string) {
	fmt.Fprintf(&c.body, "<text x=\"%s\" y=\"%s\" text-anchor=\"%s\"%s>%s</text>\n", num(x), num(y), anchor, attr, html.EscapeString(s))
}

func (c *canvas) line(x1, y1, x2, y2 float64, attr string) {
	fmt.Fprintf(&c.body, "<line x1=\"%s\" y1=\"%s\" x2=\"%s\" y2=\"%s\"%s/>\n", num(x1), num(y1), num(x2), num(y2), attr)
}

// mark notes what is seen of a value where the pointer rests on it.
func mark(title string) string { return "<title>" + html.EscapeString(title) + "</title>" }

// svg returns the whole, under a title and above a note.
func (c *canvas) svg(title, note string) []byte {
	var b strings.Builder
	lines := wrap(note, 118)
	height := c.height + 22 + 16*float64(len(lines))
	fmt.Fprintf(&b, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %s %s\" width=\"%s\" height=\"%s\" role=\"img\" aria-label=\"%s\"",
		num(plotWidth), num(height), num(plotWidth), num(height), html.EscapeString(title))
	fmt.Fprintf(&b, " font-family=\"system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif\" font-size=\"13\" fill=\"%s\">\n", inkText)
	fmt.Fprintf(&b, "<text x=\"%s\" y=\"24\" font-size=\"16\" font-weight=\"600\">%s</text>\n", num(plotMargin), html.EscapeString(title))
	b.WriteString(c.body.String())
	for i, s := range lines {
		fmt.Fprintf(&b, "<text x=\"%s\" y=\"%s\" font-size=\"12\">%s</text>\n", num(plotMargin), num(c.height+22+16*float64(i)), html.EscapeString(s))
	}
	b.WriteString("</svg>\n")
	return []byte(b.String())
}

// wrap breaks s into lines of at most n bytes.
func wrap(s string, n int) (lines []string) {
	line := ""
	for _, word := range strings.Fields(s) {
		if line != "" && len(line)+1+len(word) > n {
			lines = append(lines, line)
			line = ""
		}
		line = strings.TrimSpace(line + " " + word)
	}
	return append(lines, line)
}

// A logAxis maps values to a stretch of pixels, decade by decade.
type logAxis struct {
	lo, hi   float64 // powers of ten
	from, to float64
}

// newLogAxis has room for all values, and begins below the smallest.
func newLogAxis(values []float64, from, to float64) logAxis {
	lo, hi := math.Inf(1), math.Inf(-1)
	for _, v := range values {
		if v > 0 {
			lo, hi = min(lo, v), max(hi, v)
		}
	}
	a := logAxis{math.Floor(math.Log10(lo)), math.Ceil(math.Log10(hi)), from, to}
	if math.Log10(lo)-a.lo < 0.1 {
		a.lo-- // or the smallest bar would not be seen
	}
	if a.hi-math.Log10(hi) < 0.02 {
		a.hi++
	}
	return a
}

func (a logAxis) at(v float64) float64 {
	return a.from + (a.to-a.from)*(math.Log10(max(v, math.Pow(10, a.lo)))-a.lo)/(a.hi-a.lo)
}

// ticks are the powers of ten.
func (a logAxis) ticks() (t []float64) {
	for e := a.lo; e <= a.hi; e++ {
		t = append(t, math.Pow(10, e))
	}
	return t
}

// tick writes a value without the digits that a power of ten has not.
func tick(unit func(float64) string, v float64) string {
	s, u, _ := strings.Cut(unit(v), " ")
	if strings.Contains(s, ".") {
		s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	return strings.TrimSpace(s + " " + u)
}

const gridAttr = " stroke=\"" + inkGrid + "\" stroke-opacity=\"0.35\""

// A bar is one value of a bar chart; a gap stands before a group's first.
type bar struct {
	group, label, impl string
	stat
}

// bars draws horizontal bars on a logarithmic axis.
func bars(title, note string, unit func(float64) string, all []bar) []byte {
	const high, gap, top = 18.0, 7.0, 44.0
	widest, values := 0, []float64(nil)
	for _, b := range all {
		widest = max(widest, len(b.label))
		values = append(values, b.lo, b.hi)
	}
	left := plotMargin + letter*float64(widest) + 10
	axis := newLogAxis(values, left, plotWidth-plotMargin-86)
	c := &canvas{}
	y, group := top, ""
	for _, b := range all {
		if b.group != group {
			if group = b.group; y > top {
				y += 8
			}
			c.text(plotMargin, y+13, "start", " font-weight=\"600\"", group)
			y += high + 4
		}
		x := axis.at(b.median)
		c.text(left-8, y+13.5, "end", "", b.label)
		fmt.Fprintf(&c.body, "<rect x=\"%s\" y=\"%s\" width=\"%s\" height=\"%s\" rx=\"2\" fill=\"%s\">%s</rect>\n",
			num(left), num(y), num(max(x-left, 1)), num(high), colour(b.impl), mark(b.label+": "+unit(b.median)))
		if b.n > 1 {
			c.line(axis.at(b.lo), y+high/2, x, y+high/2, " stroke=\"#ffffff\" stroke-opacity=\"0.85\" stroke-width=\"2\"") // on the bar
			c.line(x, y+high/2, axis.at(b.hi), y+high/2, " stroke=\""+inkText+"\" stroke-width=\"2\"")
		}
		c.text(max(x, axis.at(b.hi))+7, y+13.5, "start", "", unit(b.median))
		y += high + gap
	}
	under := &canvas{height: y + 18}
	for _, v := range axis.ticks() {
		x := axis.at(v)
		under.line(x, top-6, x, y, gridAttr)
		under.text(x, y+14, "middle", " font-size=\"12\"", tick(unit, v))
	}
	under.body.WriteString(c.body.String())
	return under.svg(title, note)
}

// A series is one line of a chart.
type series struct {
	impl   string
	x      []float64
	values []stat
}

// An xAxis places and labels what a line chart has on its x axis.
type xAxis struct {
	title string
	ticks []float64
	label func(float64) string
	scale func(float64) float64 // to something linear
}

// lines draws lines over a logarithmic y axis, with their names at their ends.
func lines(title, note string, unit func(float64) string, x xAxis, all []series) []byte {
	const top, high = 48.0, 270.0
	var values []float64
	widest := 0
	for _, s := range all {
		widest = max(widest, len(s.impl))
		for _, v := range s.values {
			values = append(values, v.lo, v.hi)
		}
	}
	left, right := plotMargin+64, plotWidth-plotMargin-1.15*letter*float64(widest)-14
	y := newLogAxis(values, top+high, top)
	first, last := x.scale(x.ticks[0]), x.scale(x.ticks[len(x.ticks)-1])
	at := func(v float64) float64 {
		if first == last {
			return left
		}
		return left + (right-left)*(x.scale(v)-first)/(last-first)
	}
	c := &canvas{height: top + high + 44}
	for _, v := range y.ticks() {
		c.line(left, y.at(v), right, y.at(v), gridAttr)
		c.text(left-14, y.at(v)+4, "end", " font-size=\"12\"", tick(unit, v))
	}
	for _, v := range x.ticks {
		c.line(at(v), top, at(v), top+high, gridAttr)
		c.text(at(v), top+high+17, "middle", " font-size=\"12\"", x.label(v))
	}
	c.text((left+right)/2, top+high+36, "middle", " font-size=\"12\"", x.title)

	ends := make([]float64, len(all))
	for i, s := range all {
		ends[i] = y.at(s.values[len(s.values)-1].median) + 4
	}
	apart(ends, 15)
	for i, s := range all {
		var points []string
		stroke := " stroke=\"" + colour(s.impl) + "\""
		for j, v := range s.values {
			px, py := at(s.x[j]), y.at(v.median)
			points = append(points, num(px)+","+num(py))
			beside := px + 4*(float64(i)-float64(len(all)-1)/2) // the others'
			c.line(beside, y.at(v.lo), beside, y.at(v.hi), stroke+" stroke-width=\"4\" stroke-opacity=\"0.5\"")
			fmt.Fprintf(&c.body, "<circle cx=\"%s\" cy=\"%s\" r=\"3.5\" fill=\"%s\">%s</circle>\n", num(px), num(py), colour(s.impl),
				mark(s.impl+", "+x.label(s.x[j])+": "+unit(v.median)))
		}
		fmt.Fprintf(&c.body, "<polyline points=\"%s\" fill=\"none\"%s stroke-width=\"2\"/>\n", strings.Join(points, " "), stroke)
		c.text(at(s.x[len(s.x)-1])+9, ends[i], "start", " fill=\""+colour(s.impl)+"\" font-weight=\"600\"", s.impl)
	}
	return c.svg(title, note)
}

// apart moves heights until no two are closer than gap.
func apart(y []float64, gap float64) {
	for moved, n := true, 0; moved && n < 100; n++ {
		moved = false
		for i := range y {
			for j := range y {
				if d := y[j] - y[i]; i != j && (d > 0 || d == 0 && j > i) && d < gap-0.01 {
					y[i] -= (gap - d) / 2
					y[j] += (gap - d) / 2
					moved = true
				}
			}
		}
	}
}
