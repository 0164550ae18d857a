package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/perf/benchfmt"
	"golang.org/x/perf/benchmath"
)

// results is what all files of a directory say.
type results struct {
	sources     []*source
	comparisons []*comparison
}

// A source is a file of raw results.
type source struct {
	name, sum string            // sum is of its bytes, so that none is changed by hand
	config    map[string]string // the first value of each key
}

// A comparison is a benchmark whose rows differ in impl= alone.
type comparison struct {
	name  string
	procs string // GOMAXPROCS
	from  *source
	rows  []*row
}

type row struct {
	impl  string
	units []string // in order of appearance
	of    map[string][]float64
}

// mainUnit is the unit that rows are compared by.
const mainUnit = "ns/op"

// load reads the results in dir.
func load(dir string) (*results, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.txt"))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("no results, NAME.txt, in %s", dir)
	}
	all := &results{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		if err := all.parse(filepath.Base(file), text); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// parse adds the results of one file.
func (all *results) parse(name string, text []byte) error {
	// A benchfmt.Reader passes over what it does not know.
	n := 0
	for line := range bytes.Lines(text) {
		n++
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		if k := kind(strings.TrimSuffix(string(line), "\n")); k != aResult && k != aKey {
			return fmt.Errorf("%s:%d: neither configuration nor a result: %q", name, n, line)
		}
	}
	from := &source{name: name, sum: fmt.Sprintf("%x", sha256.Sum256(text))[:16], config: map[string]string{}}
	all.sources = append(all.sources, from)
	r := benchfmt.NewReader(bytes.NewReader(text), name)
	for r.Scan() {
		res, ok := r.Result().(*benchfmt.Result)
		if !ok {
			return fmt.Errorf("%v", r.Result())
		}
		for _, c := range res.Config {
			if _, ok := from.config[c.Key]; !ok && c.File {
				from.config[c.Key] = string(c.Value)
			}
		}
		key, impl, procs := nameOf(res.Name)
		c := all.find(key)
		if c == nil {
			c = &comparison{name: key, procs: procs, from: from}
			all.comparisons = append(all.comparisons, c)
		}
		if c.from != from {
			return fmt.Errorf("%s is in %s and in %s", key, c.from.name, name)
		}
		c.row(impl).add(res.Values)
	}
	return r.Err()
}

// nameOf takes a benchmark's name apart. The key is what rows that are compared
// have in common: all but impl=.
func nameOf(n benchfmt.Name) (key, impl, procs string) {
	base, parts := n.Parts()
	key, procs = string(base), "1"
	for _, part := range parts {
		switch p := string(part); {
		case strings.HasPrefix(p, "/impl="):
			impl = strings.TrimPrefix(p, "/impl=")
		case p[0] == '-':
			procs = p[1:]
			key += p
		default:
			key += p
		}
	}
	return key, impl, procs
}

func (all *results) find(key string) *comparison {
	for _, c := range all.comparisons {
		if c.name == key {
			return c
		}
	}
	return nil
}

func (c *comparison) row(impl string) *row {
	for _, r := range c.rows {
		if r.impl == impl {
			return r
		}
	}
	r := &row{impl: impl, of: map[string][]float64{}}
	c.rows = append(c.rows, r)
	return r
}

// add takes what one run has measured, in the units that it was written with.
func (r *row) add(values []benchfmt.Value) {
	for _, v := range values {
		unit, n := v.Unit, v.Value
		if v.OrigUnit != "" {
			unit, n = v.OrigUnit, v.OrigValue
		}
		if !slices.Contains(r.units, unit) {
			r.units = append(r.units, unit)
		}
		r.of[unit] = append(r.of[unit], n)
	}
}

// units returns the units of all rows but the main one.
func (c *comparison) units() (units []string) {
	for _, r := range c.rows {
		for _, u := range r.units {
			if u != mainUnit && !slices.Contains(units, u) {
				units = append(units, u)
			}
		}
	}
	return units
}

// rounds returns how many values the rows have, at most.
func (c *comparison) rounds() (n int) {
	for _, r := range c.rows {
		n = max(n, len(r.of[mainUnit]))
	}
	return n
}

// A stat is a median with its confidence interval.
type stat struct {
	median, lo, hi float64
	n              int
}

// confidence is that of intervals from n rounds. Fewer than six cannot give
// 95 %; their whole range is then an interval of less.
func confidence(n int) float64 { return min(0.95, 1-math.Pow(2, float64(1-n))) }

// in returns what the rounds have measured in a unit, if anything.
func (r *row) in(unit string) (s stat, ok bool) {
	v := r.of[unit]
	if len(v) == 0 {
		return s, false
	}
	if len(v) == 1 {
		return stat{v[0], v[0], v[0], 1}, true
	}
	sum := benchmath.AssumeNothing.Summary(sample(v), confidence(len(v))-1e-9)
	return stat{sum.Center, sum.Lo, sum.Hi, len(v)}, true
}

// spread is the interval's larger half, as a share of the median.
func (s stat) spread() string {
	if s.n == 1 || s.median == 0 {
		return ""
	}
	return strconv.Itoa(int(math.Ceil(100*max(s.hi-s.median, s.median-s.lo)/s.median))) + " %"
}

func sample(v []float64) *benchmath.Sample {
	return benchmath.NewSample(slices.Clone(v), &benchmath.DefaultThresholds)
}

// alike says that a U test does not tell the values of two rows apart, and
// could have done so.
func alike(a, b []float64) bool {
	if min(len(a), len(b)) < 4 {
		return false
	}
	cmp := benchmath.AssumeNothing.Compare(sample(a), sample(b))
	return cmp.P >= cmp.Alpha
}
