package bench

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"lwprt/lwp"
)

func TestMain(m *testing.M) {
	code := m.Run()
	stopC()
	os.Exit(code)
}

// A row is one line of a comparison. Its body does b.N operations, or as many
// as b.Loop asks for, and returns an error if they did not all happen: a
// benchmark that measures nothing would otherwise win.
type row struct {
	name string
	body func(b *testing.B) error
}

// A skip is an error that says why a row cannot be measured here.
type skip string

func (s skip) Error() string { return string(s) }

// skipped returns the reason if err is one to skip a row for.
func skipped(err error) (reason string, ok bool) {
	if s := skip(""); errors.As(err, &s) {
		return string(s), true
	}
	if errors.Is(err, lwp.ErrRace) {
		return err.Error(), true
	}
	return "", false
}

// compare runs each row as a sub-benchmark.
func compare(b *testing.B, rows []row) {
	for _, r := range rows {
		b.Run(r.name, func(b *testing.B) {
			settle(b)
			err := r.body(b)
			if reason, ok := skipped(err); ok {
				b.Skip(reason)
			}
			if err != nil {
				b.Fatal(err)
			}
		})
	}
}

// settle waits before the first run of a row until the kernel has freed what
// the row before has left behind: tens of thousands of tasks after a grace
// period of RCU. It would otherwise do so in this row's time.
func settle(b *testing.B) {
	if b.N == 1 {
		time.Sleep(100 * time.Millisecond)
		b.ResetTimer()
	}
}

// did returns an error unless got is want, the number of operations asked for.
func did[T int | int64 | uint64](got, want T) error {
	if got != want {
		return fmt.Errorf("%d operations counted, want %d", got, want)
	}
	return nil
}

func TestCountThatIsWrongIsAnError(t *testing.T) {
	if did(3, 3) != nil || did(2, 3) == nil || did(4, 3) == nil {
		t.Error("did does not compare")
	}
}

// TestReadmeKnowsEveryBenchmark fails where README.md does not say what one op
// of a benchmark is, in a row of its table.
func TestReadmeKnowsEveryBenchmark(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rows, _ := strings.Cut(string(readme), "## What one op is")
	rows, _, _ = strings.Cut(rows, "\n## ")
	known := map[string]bool{}
	for line := range strings.Lines(rows) {
		if cells := strings.Split(line, "|"); len(cells) == 5 {
			for name := range strings.SplitSeq(cells[1], ",") {
				known[strings.TrimSpace(name)] = true
			}
		}
	}
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^func Benchmark(\w+)\(`).FindAllSubmatch(text, -1) {
			found++
			if name := string(m[1]); !known[name] {
				t.Errorf("README.md does not say what one op of Benchmark%s is", name)
			}
		}
	}
	if found < 15 {
		t.Errorf("only %d benchmarks found", found)
	}
}

// TestEveryRowDoesItsOperations fails where a row of a benchmark loses
// operations, or measures without doing any.
func TestEveryRowDoesItsOperations(t *testing.T) {
	const n = 50
	benchtime := flag.Lookup("test.benchtime")
	old := benchtime.Value.String()
	if err := flag.Set(benchtime.Name, fmt.Sprint(n, "x")); err != nil {
		t.Fatal(err)
	}
	defer flag.Set(benchtime.Name, old)
	for name, rows := range map[string][]row{
		"SpawnJoin": spawnRows,
		"Mutex":     mutexRows,
		"TLSGet":    tlsRows,
		"Syscall":   syscallRows,
		"Jitter":    jitterRows,
		"Wake":      wakeRows,
		"Threads":   threadsParked(1000),
		"Owned":     ownedRows,
		"Process":   processRows("small", nil),

		"Switch":     switchRows,
		"Yield":      yieldRows,
		"SpawnBatch": batchRows,
		"ParkUnpark": parkRows,
		"Ring":       ringRows,
		"Chan":       chanRows,
		"Skynet":     skynetRows,
		"Fib":        fibRows,
		"Steal":      stealRows,
		"Parked":     rowsParked(1000),
		"MutexFiber": fiberLockRows(),
		"Timer":      timerRows,
		"Queue":      queueRows,
		"Handler":    handlerRows,
	} {
		for _, r := range rows {
			t.Run(name+"/"+r.name, func(t *testing.T) {
				var err error
				res := testing.Benchmark(func(b *testing.B) {
					if err = r.body(b); err != nil {
						b.FailNow()
					}
				})
				if reason, ok := skipped(err); ok {
					t.Skip(reason)
				}
				if err != nil {
					t.Fatal(err)
				}
				if res.N != n || res.T <= 0 {
					t.Errorf("%d operations in %v, want %d in more than nothing", res.N, res.T, n)
				}
			})
		}
	}
}
