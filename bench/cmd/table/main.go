// Table makes the tables of the README from raw benchmark results.
//
//	go run ./bench/cmd/table [-write README.md | -check README.md] FILE...
//
// Without flags it prints all tables that can be made. In a README a table
// stands between the lines
//
//	<!-- bench:NAME -->
//	<!-- /bench -->
//
// where NAME is a benchmark's name less "Benchmark" and the impl= key, such as
// SpawnJoin, Mutex/contend=2-2 or TLSGet/op=get; -2 is what Go adds for
// GOMAXPROCS=2. The rows are the values of impl=, in the order of the file; a
// row has its median and its minimum, and the ratio of its median to that of
// the first row. Other units have a column each.
//
// -write puts the tables in place. -check exits with status 1 if that would
// change the README.
package main

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

func main() {
	check := flag.String("check", "", "`file` whose tables are to be compared")
	write := flag.String("write", "", "`file` whose tables are to be replaced")
	flag.Parse()
	if flag.NArg() == 0 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(os.Stdout, *check, *write, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "table:", err)
		os.Exit(1)
	}
}

func run(w io.Writer, check, write string, files []string) error {
	var all []*table
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		tables, err := parse(f)
		f.Close()
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		for _, t := range tables {
			if find(all, t.name) != nil {
				return fmt.Errorf("%s is in two files", t.name)
			}
		}
		all = append(all, tables...)
	}
	if check == "" && write == "" {
		for _, t := range all {
			fmt.Fprintf(w, "<!-- bench:%s -->\n%s<!-- /bench -->\n\n", t.name, t.markdown())
		}
		return nil
	}
	for _, name := range []string{check, write} {
		if name == "" {
			continue
		}
		old, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		now, err := replace(string(old), all)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if now == string(old) {
			continue
		}
		if name == check {
			return fmt.Errorf("the tables of %s are not those of the results; run with -write", name)
		}
		if err := os.WriteFile(name, []byte(now), 0o666); err != nil {
			return err
		}
	}
	return nil
}

// A table is what the results say of one comparison.
type table struct {
	name   string
	rows   []*row
	config map[string]string
}

type row struct {
	impl  string
	units []string // in order of appearance
	of    map[string][]float64
}

func find(tables []*table, name string) *table {
	for _, t := range tables {
		if t.name == name {
			return t
		}
	}
	return nil
}

// parse reads results in the format of golang.org/x/perf/benchfmt as far as
// cmd/record writes it: configuration lines "key: value" and result lines.
func parse(r io.Reader) (tables []*table, err error) {
	config := map[string]string{}
	s := bufio.NewScanner(r)
	for n := 1; s.Scan(); n++ {
		f := strings.Fields(s.Text())
		if len(f) == 0 {
			continue
		}
		if k, v, ok := strings.Cut(s.Text(), ": "); ok && !strings.HasPrefix(k, "Benchmark") {
			config[k] = v
			continue
		}
		if !strings.HasPrefix(f[0], "Benchmark") || len(f) < 4 || len(f)%2 != 0 {
			return nil, fmt.Errorf("line %d is neither configuration nor a result: %q", n, s.Text())
		}
		name, impl := split(f[0])
		t := find(tables, name)
		if t == nil {
			t = &table{name: name, config: config}
			tables = append(tables, t)
		}
		r := t.row(impl)
		for i := 2; i < len(f); i += 2 {
			v, err := strconv.ParseFloat(f[i], 64)
			if err != nil {
				return nil, fmt.Errorf("line %d: %w", n, err)
			}
			unit := f[i+1]
			if !slices.Contains(r.units, unit) {
				r.units = append(r.units, unit)
			}
			r.of[unit] = append(r.of[unit], v)
		}
	}
	return tables, s.Err()
}

// cutProcs cuts what Go adds to the name of a benchmark: the dash and the
// value of GOMAXPROCS, or nothing where that is 1.
func cutProcs(s string) (name, procs string) {
	if i := strings.LastIndexByte(s, '-'); i >= 0 {
		if _, err := strconv.Atoi(s[i+1:]); err == nil {
			return s[:i], s[i:]
		}
	}
	return s, ""
}

// procs returns the value of GOMAXPROCS.
func (t *table) procs() string {
	if _, procs := cutProcs(t.name); procs != "" {
		return procs[1:]
	}
	return "1"
}

// split takes a benchmark's name apart: the comparison, and the one compared.
func split(s string) (name, impl string) {
	s, procs := cutProcs(strings.TrimPrefix(s, "Benchmark"))
	var keep []string
	for _, part := range strings.Split(s, "/") {
		if v, ok := strings.CutPrefix(part, "impl="); ok {
			impl = v
		} else {
			keep = append(keep, part)
		}
	}
	return strings.Join(keep, "/") + procs, impl
}

func (t *table) row(impl string) *row {
	for _, r := range t.rows {
		if r.impl == impl {
			return r
		}
	}
	r := &row{impl: impl, of: map[string][]float64{}}
	t.rows = append(t.rows, r)
	return r
}

// mainUnit is the unit that rows are compared by.
const mainUnit = "ns/op"

func (t *table) markdown() string {
	var extra []string
	rounds := 0
	for _, r := range t.rows {
		rounds = max(rounds, len(r.of[mainUnit]))
		for _, u := range r.units {
			if u != mainUnit && !slices.Contains(extra, u) {
				extra = append(extra, u)
			}
		}
	}
	var b strings.Builder
	b.WriteString("| impl | median | min | ratio |")
	for _, u := range extra {
		b.WriteString(" " + u + " |")
	}
	b.WriteString("\n| --- | ---: | ---: | ---: |" + strings.Repeat(" ---: |", len(extra)) + "\n")
	base := median(t.rows[0].of[mainUnit])
	for _, r := range t.rows {
		v := r.of[mainUnit]
		fmt.Fprintf(&b, "| %s | %s | %s | %.2f |", r.impl, duration(median(v)), duration(slices.Min(v)), median(v)/base)
		for _, u := range extra {
			cell := ""
			if v := r.of[u]; len(v) > 0 {
				cell = digits(median(v))
			}
			b.WriteString(" " + cell + " |")
		}
		b.WriteByte('\n')
	}
	fmt.Fprintf(&b, "\n%s, GOMAXPROCS=%s; %s; %s; commit %s; rounds: %d.\n",
		t.config["cpu"], t.procs(), t.config["kernel"], t.config["go"], t.config["commit"], rounds)
	return b.String()
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	n := len(v)
	if n == 0 {
		return 0
	}
	return (v[(n-1)/2] + v[n/2]) / 2
}

// duration writes a number of nanoseconds with three digits or more.
func duration(ns float64) string {
	switch {
	case ns >= 1e9:
		return digits(ns/1e9) + " s"
	case ns >= 1e6:
		return digits(ns/1e6) + " ms"
	case ns >= 1e3:
		return digits(ns/1e3) + " µs"
	}
	return digits(ns) + " ns"
}

func digits(v float64) string {
	switch {
	case v >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}

var marker = regexp.MustCompile(`^<!-- bench:(\S+) -->$`)

const markerEnd = "<!-- /bench -->"

// replace returns text with the tables put between their markers.
func replace(text string, tables []*table) (string, error) {
	var b bytes.Buffer
	open, places := "", 0
	for line := range strings.Lines(text) {
		s := strings.TrimSpace(line)
		if m := marker.FindStringSubmatch(s); m != nil {
			if open != "" {
				return "", fmt.Errorf("bench:%s is not closed", open)
			}
			t := find(tables, m[1])
			if t == nil {
				return "", fmt.Errorf("no results for bench:%s", m[1])
			}
			open = m[1]
			places++
			b.WriteString(line)
			b.WriteString(t.markdown())
			continue
		}
		if s == markerEnd {
			if open == "" {
				return "", fmt.Errorf("%s without a beginning", markerEnd)
			}
			open = ""
		}
		if open == "" {
			b.WriteString(line)
		}
	}
	if open != "" {
		return "", fmt.Errorf("bench:%s is not closed", open)
	}
	if places == 0 {
		return "", fmt.Errorf("no <!-- bench:NAME --> in it")
	}
	return b.String(), nil
}
