package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// A plot is a picture of some of the results. Its draw returns nil where there
// are none of them.
type plot struct {
	name, about string
	draw        func(*results) []byte
}

// plots are all, in the order of the report.
var plots = []plot{
	{"create-join", "creating and joining, by mechanism", drawCreateJoin},
	{"yield", "a yield, by the number of those that yield", drawYield},
	{"memory", "memory of one that waits", drawMemory},
	{"programs", "whole programs", drawPrograms},
	{"jitter", "how late a loop sees an event, by percentile", drawJitter},
	{"wake", "how long a wake takes, by percentile", drawWake},
}

func (p plot) file() string { return p.name + ".svg" }

// link shows the plot, which is in dir, on a page.
func (p plot) link(dir string, all *results) string {
	if p.draw(all) == nil {
		return notMeasured("the plot of " + p.about)
	}
	if dir != "" {
		dir += "/"
	}
	return fmt.Sprintf("![%s](%s%s)\n", p.about, dir, p.file())
}

// barsOf returns a bar for each impl of some comparisons that has a unit.
func (all *results) barsOf(unit string, names ...string) (bars []bar) {
	for _, name := range names {
		if c := all.find(name); c != nil {
			for _, r := range c.rows {
				if s, ok := r.in(unit); ok {
					bars = append(bars, bar{label: r.impl, impl: r.impl, stat: s})
				}
			}
		}
	}
	return bars
}

func drawCreateJoin(all *results) []byte {
	b := all.barsOf(mainUnit, "SpawnJoin")
	if b == nil {
		return nil
	}
	if c := all.find("Process/prog=tiny/rss=small"); c != nil {
		for _, r := range c.rows {
			if s, ok := r.in(mainUnit); ok {
				b = append(b, bar{label: r.impl + ", a program", impl: r.impl, stat: s})
			}
		}
	}
	slices.SortStableFunc(b, func(a, b bar) int { return int(math.Copysign(1, a.median-b.median)) })
	return bars("Create and join, on one CPU",
		"Logarithmic. Medians, and their confidence intervals as a stroke. A fiber or goroutine is no kernel thread; "+
			"vfork, fork and programs are processes; clonefloor is the bare system calls, from C.", duration, b)
}

func drawYield(all *results) []byte {
	var s []series
	x := xAxis{title: "fibers, goroutines or contexts that take turns on one CPU", scale: math.Log10,
		label: func(v float64) string { return strconv.FormatFloat(v, 'f', 0, 64) }}
	for _, c := range all.comparisons {
		n, ok := strings.CutPrefix(c.name, "Yield/fibers=")
		if !ok || c.procs != "1" {
			continue
		}
		fibers, err := strconv.ParseFloat(n, 64)
		if err != nil {
			continue
		}
		x.ticks = append(x.ticks, fibers)
		for _, r := range c.rows {
			if v, ok := r.in(mainUnit); ok {
				s = point(s, r.impl, fibers, v)
			}
		}
	}
	if s == nil {
		return nil
	}
	slices.Sort(x.ticks)
	return lines("One yield", "Both axes logarithmic. Medians and confidence intervals. A goroutine's yield also looks for other work; "+
		"fcontext is a bare switch without a scheduler, from C.", duration, x, s)
}

// point adds a point to the line of an impl.
func point(all []series, impl string, x float64, v stat) []series {
	i := slices.IndexFunc(all, func(s series) bool { return s.impl == impl })
	if i < 0 {
		all = append(all, series{impl: impl})
		i = len(all) - 1
	}
	s := &all[i]
	at, _ := slices.BinarySearch(s.x, x)
	s.x = slices.Insert(s.x, at, x)
	s.values = slices.Insert(s.values, at, v)
	return all
}

func drawMemory(all *results) []byte {
	var b []bar
	for _, c := range all.comparisons {
		n, ok := strings.CutPrefix(c.name, "Parked/fibers=")
		if !ok || c.procs != "1" {
			continue
		}
		for _, r := range c.rows {
			s, ok := r.in("B/fiber")
			if !ok {
				continue
			}
			if k, ok := r.in("kernel-B/fiber"); ok && k.median > 0 {
				s.median, s.lo, s.hi = s.median+k.median, s.lo+max(k.lo, 0), s.hi+k.hi
			}
			b = append(b, bar{group: "one of " + n, label: r.impl, impl: r.impl, stat: s})
		}
	}
	if b == nil {
		return nil
	}
	return bars("Memory of one that waits", "Logarithmic. Resident memory of the process, and what the kernel has for it "+
		"where that was measured. Fibers have stacks of 2 KiB, which do not grow.", bytesOf, b)
}

func drawPrograms(all *results) []byte {
	var b []bar
	for _, c := range all.comparisons {
		name, ok := programOf(c)
		if !ok {
			continue
		}
		for _, r := range c.rows {
			if s, ok := r.in(mainUnit); ok {
				b = append(b, bar{group: name, label: r.impl, impl: r.impl, stat: s})
			}
		}
	}
	if b == nil {
		return nil
	}
	return bars("Whole programs", "Logarithmic. Time of one op: a node of a tree (Skynet), a spawned call (Fib), a hop of a token "+
		"around 503 (Ring), and so on. Medians, and their confidence intervals as a stroke.", duration, b)
}

// programOf says whether a comparison is of whole programs, and names it.
func programOf(c *comparison) (string, bool) {
	base, rest, _ := strings.Cut(strings.TrimSuffix(c.name, "-"+c.procs), "/")
	if !slices.Contains([]string{"Skynet", "Fib", "Ring", "SpawnBatch"}, base) {
		return "", false
	}
	workers := "1"
	for _, part := range strings.Split(rest, "/") {
		if n, ok := strings.CutPrefix(part, "workers="); ok {
			workers = n
		}
		if op, ok := strings.CutPrefix(part, "op="); ok && op != "join" {
			base += " by " + op
		}
	}
	if workers != c.procs {
		return "", false // a CPU lies idle, or two share one
	}
	if workers != "1" {
		base += ", " + workers + " CPUs"
	}
	return base, true
}

// percentiles returns a line for each impl of a benchmark, and of each of its
// variants, of its units p50-ns and the like: for the first number of CPUs that
// has any.
func (all *results) percentiles(base string) (s []series, x xAxis) {
	x = xAxis{title: "percentile", label: func(v float64) string { return "p" + strconv.FormatFloat(v, 'f', -1, 64) },
		scale: func(p float64) float64 { return -math.Log10(1 - p/100) }}
	procs := ""
	for _, c := range all.comparisons {
		variant, ok := strings.CutPrefix(strings.TrimSuffix(c.name, "-"+c.procs), base)
		if !ok || variant != "" && variant[0] != '/' || s != nil && c.procs != procs {
			continue
		}
		procs = c.procs
		for _, r := range c.rows {
			for _, u := range r.units {
				p, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimPrefix(u, "p"), "-ns"), 64)
				if err != nil {
					continue
				}
				v, _ := r.in(u)
				s = point(s, strings.Replace(r.impl+variant, "/", ", ", 1), p, v)
				if !slices.Contains(x.ticks, p) {
					x.ticks = append(x.ticks, p)
				}
			}
		}
	}
	slices.Sort(x.ticks)
	return s, x
}

func drawJitter(all *results) []byte {
	s, x := all.percentiles("Jitter")
	if s == nil {
		return nil
	}
	return lines("How late a loop sees an event, beside a busy collector",
		"The time until the loop looks at the clock again, from a random moment on; the loop has a CPU of its own, "+
			"and but for alone, goroutines make garbage on another. procs is the number of the runtime's Ps. Medians and confidence intervals over the rounds.", duration, x, s)
}

func drawWake(all *results) []byte {
	s, x := all.percentiles("Wake")
	if s == nil {
		return nil
	}
	return lines("From a wake to the running of the one that slept, on another CPU",
		"Medians and confidence intervals over the rounds.", duration, x, s)
}
