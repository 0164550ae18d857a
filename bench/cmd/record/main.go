// Record runs the benchmarks of lwprt and prints the raw results with what
// they were measured on, in the format of golang.org/x/perf/benchfmt.
//
//	go run ./bench/cmd/record [flags] > bench/results/NAME.txt
//
// The whole selection is run -count times, a process each time, so that rows
// which are compared stand next to each other in time. Benchmarks for one CPU
// and for several can go into one file: -cpus 1,2 runs each round on the first
// CPU that is allowed here, then on the first two. Go marks the results of the
// latter with -2.
package main

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// suite is the package that is run where none is named.
const suite = "lwprt/bench"

func main() {
	count := flag.Int("count", 10, "rounds")
	bench := flag.String("bench", ".", "regular expression of the benchmarks")
	benchtime := flag.String("benchtime", "300ms", "as of go test")
	cpus := flag.String("cpus", "", "numbers of CPUs to run each round on, separated by commas; default: all that are allowed")
	pkg := flag.String("pkg", suite, "package of the benchmarks")
	flag.Parse()
	if flag.NArg() != 0 || *count < 1 {
		flag.Usage()
		os.Exit(2)
	}
	if err := record(os.Stdout, *pkg, *bench, *benchtime, *cpus, *count); err != nil {
		fmt.Fprintln(os.Stderr, "record:", err)
		os.Exit(1)
	}
}

func record(w io.Writer, pkg, bench, benchtime, cpus string, count int) error {
	sets, err := cpuSets(cpus)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "lwprt-record-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, "bench.test")
	if out, err := exec.Command("go", "test", "-c", "-o", binary, pkg).CombinedOutput(); err != nil {
		return fmt.Errorf("go test -c: %w\n%s", err, out)
	}
	for _, kv := range machine() {
		fmt.Fprintf(w, "%s: %s\n", kv[0], kv[1])
	}
	fmt.Fprintf(w, "rounds: %d\nbenchtime: %s\n", count, benchtime)

	seen := map[string]bool{"cpu": true} // ours is there on every port
	for range count {
		for _, set := range sets {
			// What a locked goroutine starts has its thread's CPU set. The
			// set is not put back: the next round sets its own, and this
			// program does nothing else.
			runtime.LockOSThread()
			if err := unix.SchedSetaffinity(0, set); err != nil {
				return fmt.Errorf("sched_setaffinity: %w", err)
			}
			if n := strconv.Itoa(set.Count()); len(sets) > 1 || !seen["cpus"] {
				fmt.Fprintf(w, "cpus: %s\n", n)
				seen["cpus"] = true
			}
			cmd := exec.Command(binary, "-test.run=^$", "-test.bench="+bench, "-test.benchtime="+benchtime)
			cmd.Dir = dir
			out, err := cmd.Output()
			pass(w, os.Stderr, out, seen)
			var failed *exec.ExitError
			if errors.As(err, &failed) {
				os.Stderr.Write(failed.Stderr)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// cpuSets returns a CPU set for each number of CPUs in list.
func cpuSets(list string) (sets []*unix.CPUSet, err error) {
	var allowed unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		return nil, fmt.Errorf("sched_getaffinity: %w", err)
	}
	if list == "" {
		return []*unix.CPUSet{&allowed}, nil
	}
	for _, f := range strings.Split(list, ",") {
		n, err := strconv.Atoi(f)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("-cpus: %q is not a number of CPUs", f)
		}
		if n > allowed.Count() {
			return nil, fmt.Errorf("-cpus: %d CPUs wanted, %d allowed", n, allowed.Count())
		}
		set := new(unix.CPUSet)
		for cpu := 0; set.Count() < n; cpu++ {
			if allowed.IsSet(cpu) {
				set.Set(cpu)
			}
		}
		sets = append(sets, set)
	}
	return sets, nil
}

// pass copies results to w, and configuration lines that are not there yet.
// What else a test binary prints, skipped rows with their reasons and so on,
// goes to rest.
func pass(w, rest io.Writer, out []byte, seen map[string]bool) {
	for line := range bytes.Lines(out) {
		s := string(line)
		if isResult(s) {
			io.WriteString(w, s)
			continue
		}
		if k, _, ok := strings.Cut(s, ": "); ok && isKey(k) {
			if !seen[k] {
				seen[k] = true
				io.WriteString(w, s)
			}
			continue
		}
		if s != "PASS\n" {
			io.WriteString(rest, s)
		}
	}
}

// isResult says whether line is that of a benchmark which has been measured.
func isResult(line string) bool {
	f := strings.Fields(line)
	if len(f) < 4 || !strings.HasPrefix(f[0], "Benchmark") {
		return false
	}
	_, err := strconv.Atoi(f[1])
	return err == nil
}

// isKey says whether s can be the key of a configuration line.
func isKey(s string) bool {
	return s != "" && s[0] >= 'a' && s[0] <= 'z' && !strings.ContainsAny(s, " \t/-")
}

// machine describes what the results are measured on.
func machine() [][2]string {
	var m [][2]string
	add := func(key, value string) {
		if value == "" {
			value = "unknown"
		}
		m = append(m, [2]string{key, value})
	}
	add("cpu", cpuModel())
	var u unix.Utsname
	unix.Uname(&u)
	add("kernel", unix.ByteSliceToString(u.Sysname[:])+" "+unix.ByteSliceToString(u.Release[:]))
	add("go", output("go", "env", "GOVERSION"))
	commit := output("git", "rev-parse", "--short=12", "HEAD")
	if commit != "" && output("git", "status", "--porcelain") != "" {
		commit += "+dirty"
	}
	add("commit", commit)
	add("cc", compiler())
	load, _ := os.ReadFile("/proc/loadavg")
	one, _, _ := strings.Cut(string(load), " ")
	add("load", one)
	return m
}

// cpuModel returns the name of the CPU, or on machines that do not give one
// the numbers by which they do.
func cpuModel() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	defer f.Close()
	found := map[string]string{}
	for s := bufio.NewScanner(f); s.Scan(); {
		k, v, _ := strings.Cut(s.Text(), ":")
		found[strings.TrimSpace(k)] = strings.TrimSpace(v)
	}
	if name := found["model name"]; name != "" {
		return name
	}
	if found["CPU implementer"] == "" {
		return ""
	}
	return "implementer " + found["CPU implementer"] + " part " + found["CPU part"]
}

// compiler returns the first line of what the C compiler calls itself.
func compiler() string {
	cc := strings.Fields(os.Getenv("CC"))
	if len(cc) == 0 {
		cc = []string{"cc"}
	}
	first, _, _ := strings.Cut(output(cc[0], "--version"), "\n")
	if first == "" {
		return "none"
	}
	return first
}

func output(name string, args ...string) string {
	out, err := exec.Command(name, args...).Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}
