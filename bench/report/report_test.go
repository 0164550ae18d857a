package main

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const raw = `cpu: A CPU
kernel: Linux 6.1
go: go1.26
commit: abc
load: 0.10
command: go run . -o x
cpus: 1
BenchmarkSpawnJoin/impl=lwp   100   30000 ns/op
BenchmarkSpawnJoin/impl=fiber   100   30 ns/op
cpus: 2
BenchmarkMutex/impl=futex/contend=2-2   100   10 ns/op   50.5 ops/turn
BenchmarkMutex/impl=sync/contend=2-2   100   20 ns/op
cpus: 1
BenchmarkSpawnJoin/impl=lwp   100   10000 ns/op
BenchmarkSpawnJoin/impl=fiber   100   10 ns/op
BenchmarkSpawnJoin/impl=lwp   100   20000 ns/op
BenchmarkSpawnJoin/impl=fiber   100   20 ns/op
BenchmarkYield/impl=fiber/fibers=2   100   5 ns/op
BenchmarkYield/impl=goroutine/fibers=2   100   50 ns/op
BenchmarkYield/impl=fiber/fibers=100   100   6 ns/op
BenchmarkYield/impl=goroutine/fibers=100   100   60 ns/op
BenchmarkJitter/impl=lwp/procs=4-2   100   1000000 ns/op   20 p50-ns   30000 p99.9-ns
`

const spawnTable = `| impl | median | 75 % | ratio |
| --- | ---: | ---: | ---: |
| lwp | 20.0 µs | 10.0–30.0 µs | 1.00 |
| fiber | 20.0 ns | 10.0–30.0 ns | 0.0010 |

One CPU; 3 rounds, intervals of 75 %; raw.txt.
`

const mutexTable = `| impl | median | ratio | ops/turn |
| --- | ---: | ---: | ---: |
| futex | 10.0 ns | 1.00 | 50.5 |
| sync | 20.0 ns | 2.00 |  |

GOMAXPROCS=2; one round; raw.txt.
`

const jitterTable = `| impl | median | ratio | p50 | p99.9 |
| --- | ---: | ---: | ---: | ---: |
| lwp | 1.00 ms | 1.00 | 20.0 ns | 30.0 µs |
`

const yieldTable = `| | fiber | goroutine |
| --- | ---: | ---: |
| Yield/fibers=2 | 5.00 ns | 50.0 ns; **10.0** |
| Yield/fibers=100 | 6.00 ns | 60.0 ns; **10.0** |
`

const page = `# Title
<!-- bench:SpawnJoin -->
old
<!-- /bench -->
text
<!-- bench:Mutex/contend=2-2 -->
<!-- /bench -->
<!-- bench:Yield/fibers=2 Yield/fibers=100 -->
<!-- /bench -->
<!-- bench:Jitter/procs=4-2 -->
<!-- /bench -->
<!-- bench:plot:yield -->
<!-- /bench -->
<!-- bench:plot:wake -->
<!-- /bench -->
<!-- bench:New -->
<!-- /bench -->
<!-- bench:machine -->
<!-- /bench -->
end
`

func parsed(t *testing.T, text string) *results {
	t.Helper()
	all := &results{}
	if err := all.parse("raw.txt", []byte(text)); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestPagesSayWhatTheResultsSay(t *testing.T) {
	got, err := parsed(t, raw).fill(page, "results")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		spawnTable, mutexTable, yieldTable, jitterTable, "](results/yield.svg)\n", "\ntext\n", "\nend\n",
		"Not measured yet: New.", "Not measured yet: the plot of how long a wake takes",
		"| raw.txt | A CPU | Linux 6.1 | go1.26 | abc | ", "`go run . -o x`",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("not in it: %q", want)
		}
	}
	if strings.Contains(got, "old") {
		t.Error("what stood between the markers is still there")
	}
	if t.Failed() {
		t.Log(got)
	}
	if again, err := parsed(t, raw).fill(got, "results"); err != nil || again != got {
		t.Error("a second time gives something else:", err)
	}
}

// TestWhatIsStaleFailsTheCheck changes by hand what is committed: each number
// of the results, a table, a plot.
func TestWhatIsStaleFailsTheCheck(t *testing.T) {
	dir := t.TempDir()
	md, txt := filepath.Join(dir, "README.md"), filepath.Join(dir, "raw.txt")
	put := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	put(txt, raw)
	put(md, page)
	do := func(check bool) error { return run(&recording{}, dir, "raw", []string{md}, true, check) }
	if do(true) == nil {
		t.Error("a page that was never filled passes")
	}
	put(filepath.Join(dir, "old.svg"), "<svg/>")
	if err := do(false); err != nil {
		t.Fatal(err)
	}
	if err := do(true); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "old.svg")); err == nil {
		t.Error("a plot of nothing is still there")
	}

	spoil := func(name, from, to string) {
		t.Helper()
		good, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		bad := strings.Replace(string(good), from, to, 1)
		if bad == string(good) {
			t.Fatalf("%s has no %q", name, from)
		}
		put(name, bad)
		if do(true) == nil {
			t.Errorf("%s with %s for %s passes", name, to, from)
		}
		put(name, string(good))
	}
	for line := range strings.Lines(raw) {
		if f := strings.Fields(line); kind(strings.TrimSpace(line)) == aResult {
			spoil(txt, line, strings.Replace(line, " "+f[2]+" ", " "+f[2]+"1 ", 1))
		}
	}
	spoil(txt, "commit: abc", "commit: abd")
	spoil(md, "20.0 µs", "19.0 µs")
	spoil(filepath.Join(dir, reportPage), "20.0 µs", "19.0 µs")
	spoil(filepath.Join(dir, "yield.svg"), "circle", "ellipse")
	if err := run(&recording{count: 1}, dir, "other", nil, false, false); err == nil || !strings.Contains(err.Error(), "raw.txt") {
		t.Errorf("results for what is in another file: %v", err)
	}
	put(filepath.Join(dir, "more.svg"), "<svg/>")
	if do(true) == nil {
		t.Error("a plot without results passes")
	}
}

func TestBrokenMarkersAreErrors(t *testing.T) {
	all := parsed(t, raw)
	for _, text := range []string{
		"no table\n",
		"<!-- bench:SpawnJoin -->\n",
		"<!-- bench:SpawnJoin -->\n<!-- bench:SpawnJoin -->\n<!-- /bench -->\n",
		"<!-- /bench -->\n",
		"<!-- bench:plot:unknown -->\n<!-- /bench -->\n",
	} {
		if _, err := all.fill(text, ""); err == nil {
			t.Errorf("%q: no error", text)
		}
	}
}

func TestLineThatIsNoResultIsAnError(t *testing.T) {
	for _, text := range []string{"BenchmarkX 100\n", "--- FAIL\n", "BenchmarkX 1 fast ns/op\n"} {
		if (&results{}).parse("x", []byte(text)) == nil {
			t.Errorf("%q: no error", text)
		}
	}
	all := parsed(t, raw)
	if all.parse("again.txt", []byte(raw)) == nil {
		t.Error("two files for one table pass")
	}
}

func TestIntervalsHoldTheMedian(t *testing.T) {
	for n := 1; n <= 12; n++ {
		r := &row{of: map[string][]float64{}}
		for i := range n {
			r.of[mainUnit] = append(r.of[mainUnit], float64((i*13)%n+1))
		}
		s, ok := r.in(mainUnit)
		if !ok || s.median != float64(n+1)/2 || s.lo > s.median || s.hi < s.median || math.IsInf(s.hi-s.lo, 0) {
			t.Errorf("%d rounds: %+v", n, s)
		}
		if n < 7 && (s.lo != 1 || s.hi != float64(n)) {
			t.Errorf("%d rounds: %+v is not the whole range", n, s)
		}
	}
	if same := []float64{1, 2, 3, 4, 5}; !alike(same, same) || alike(same, []float64{6, 7, 8, 9, 10}) {
		t.Error("what is alike is not told from what is not")
	}
}

// TestLossesAreTold fails if what a peer does better would not be listed, or
// what chance explains would.
func TestLossesAreTold(t *testing.T) {
	var b strings.Builder
	for i := range 5 {
		fmt.Fprintf(&b, "BenchmarkA/impl=lwp 1 %d ns/op\nBenchmarkA/impl=pthread 1 %d ns/op\nBenchmarkA/impl=clonefloor 1 %d ns/op\n", 200+i, 100+i, 199+i)
		fmt.Fprintf(&b, "BenchmarkB/impl=fiber 1 1 ns/op %d B/fiber\nBenchmarkB/impl=goroutine 1 2 ns/op %d B/fiber\n", 300+i, 100+i)
	}
	got := parsed(t, b.String()).lossTable()
	want := "| B | fiber | 302 B | goroutine | 102 B | 2.96 |\n| A | lwp | 202 ns | pthread | 102 ns | 1.98 |\n"
	if !strings.HasSuffix(got, "---: |\n"+want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// contrast is that of WCAG 2 between two colours, #rrggbb.
func contrast(a, b string) float64 {
	luminance := func(s string) float64 {
		l := 0.0
		for i, weight := range []float64{0.2126, 0.7152, 0.0722} {
			n, _ := strconv.ParseUint(s[1+2*i:3+2*i], 16, 8)
			v := float64(n) / 255
			if v <= 0.04045 {
				v /= 12.92
			} else {
				v = math.Pow((v+0.055)/1.055, 2.4)
			}
			l += weight * v
		}
		return l
	}
	x, y := luminance(a)+0.05, luminance(b)+0.05
	return max(x/y, y/x)
}

func TestColoursAreSeenOnWhiteAndOnBlack(t *testing.T) {
	least := map[string]float64{inkText: 4, otherColour: 3}
	for _, c := range palette {
		least[c] = 3
	}
	for c, want := range least {
		for _, background := range []string{"#ffffff", "#0d1117"} {
			if got := contrast(c, background); got < want {
				t.Errorf("%s on %s: contrast %.2f, want %.1f", c, background, got, want)
			}
		}
	}
}

func TestPlotsAreWholePictures(t *testing.T) {
	files, err := parsed(t, raw).files("d", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"create-join", "yield", "jitter"} {
		svg := files[filepath.Join("d", name+".svg")]
		if svg == nil {
			t.Errorf("no plot %s", name)
			continue
		}
		for d := xml.NewDecoder(bytes.NewReader(svg)); ; {
			tok, err := d.Token()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			e, ok := tok.(xml.StartElement)
			if !ok {
				continue
			}
			for _, a := range e.Attr {
				switch a.Name.Local {
				case "x", "x1", "x2", "cx":
					if v, err := strconv.ParseFloat(a.Value, 64); err != nil || v < 0 || v > plotWidth {
						t.Errorf("%s: %s is outside the picture: %s=%s", name, e.Name.Local, a.Name.Local, a.Value)
					}
				}
			}
		}
	}
	if files[filepath.Join("d", "wake.svg")] != nil {
		t.Error("there is a plot of nothing")
	}
}

func Example_smallRatios() {
	for _, v := range []float64{0.00138, 0.0217, 0.0946, 0.1, 0.995, 9.996, 27.15, 99.96, 1234} {
		fmt.Println(quotient(v))
	}
	// Output:
	// 0.0014
	// 0.022
	// 0.095
	// 0.10
	// 0.99
	// 10.0
	// 27.1
	// 100
	// 1234
}
