// Report measures lwprt beside what else there is, and makes tables and plots
// of the results.
//
//	cd bench/report && go run . -o DIR
//
// It runs the benchmarks of package bench and writes to DIR
//
//   - results.txt, the raw results, with what they were measured on, in the
//     format of golang.org/x/perf/benchfmt: benchstat -col /impl reads it;
//   - report.md, all tables: medians with confidence intervals, and ratios;
//   - the plots, as SVG.
//
// A round is one run of everything, and there are -count of them, so that rows
// which are compared stand next to each other in time. Each round is run on
// the first CPU that is allowed here, then on the first two (-cpus); Go marks
// the results of the latter with -2. Rows that take seconds each have fewer
// rounds (-dear). -quick is for a first look.
//
// With -pages the tables and plots are also put into Markdown files. There a
// table stands between the lines
//
//	<!-- bench:NAME -->
//	<!-- /bench -->
//
// where NAME is a benchmark's name less "Benchmark" and the impl= key, such as
// SpawnJoin, Mutex/contend=2-2 or TLSGet/op=get; -2 is what Go adds for
// GOMAXPROCS=2. The rows are the values of impl=. Several names, with spaces
// between them, make a table with a row for each and a column for each impl.
// The name machine stands for where all the numbers come from, losses for all
// that ours lose to their peers, and plot:NAME for a plot.
//
// -render makes tables and plots of all results that are in DIR, NAME.txt,
// without measuring. -check does not write either: it fails where a table or
// a plot is not what the results in DIR say.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

func main() {
	var r recording
	out := flag.String("o", "", "`directory` of the results, tables and plots")
	name := flag.String("name", "results", "`name` of the raw results in it")
	pages := flag.String("pages", "", "Markdown `files` to put tables and plots into, separated by commas")
	render := flag.Bool("render", false, "do not measure")
	check := flag.Bool("check", false, "do not measure or write: compare")
	quick := flag.Bool("quick", false, "a few short rounds, without the rows that take seconds each")
	flag.IntVar(&r.count, "count", 6, "rounds; six give intervals of 95 %")
	flag.IntVar(&r.dear, "dear", -1, "rounds of the rows that take seconds each; default: half of the rounds")
	flag.StringVar(&r.bench, "bench", "", "regular `expression` of the benchmarks; default: all")
	flag.StringVar(&r.benchtime, "benchtime", "100ms", "as of go test")
	flag.StringVar(&r.cpus, "cpus", "", "`numbers` of CPUs to run each round on; default: 1,2, as far as they are there")
	flag.Parse()
	if *out == "" || flag.NArg() != 0 || r.count < 1 || *render && *check {
		flag.Usage()
		os.Exit(2)
	}
	if *quick {
		r.quicken()
	}
	if r.dear < 0 {
		r.dear = (r.count + 1) / 2
	}
	err := run(&r, *out, *name, split(*pages), *render || *check, *check)
	if err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1)
	}
}

func run(r *recording, dir, name string, pages []string, measured, check bool) error {
	var failed error
	if !measured {
		if err := os.MkdirAll(dir, 0o777); err != nil {
			return err
		}
		file := filepath.Join(dir, name+".txt")
		if others, _ := filepath.Glob(filepath.Join(dir, "*.txt")); r.bench == "" {
			// Better said now than when all has been measured.
			others = slices.DeleteFunc(others, func(s string) bool { return s == file })
			if len(others) > 0 {
				return fmt.Errorf("a table is of one file: remove %s, or name another directory", strings.Join(others, ", "))
			}
		}
		if failed = r.into(file); failed != nil && !r.any {
			return failed
		}
	}
	all, err := load(dir)
	if err != nil {
		return err
	}
	files, err := all.files(dir, pages)
	if err != nil {
		return err
	}
	if check {
		return stale(dir, files)
	}
	if err := write(dir, files); err != nil {
		return err
	}
	return failed // of a row; the others are good
}

// split returns the parts of a list with commas, which may be empty.
func split(list string) []string {
	if list == "" {
		return nil
	}
	return strings.Split(list, ",")
}
