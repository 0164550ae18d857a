// Package bench measures lwprt against what else there is: goroutines, the
// system calls themselves, and C programs.
//
//	go test -run '^$' -bench . ./bench
//	go test -run '^$' -bench SpawnJoin ./bench -count 10 | benchstat -col /impl -
//
// A benchmark is one comparison: what its rows differ in comes first in their
// names, impl=, then op=, workers=, fibers= and contend= where there are such,
// in this order. Its comment says what one op is, and what each side does that
// the others do not.
//
// The C side, in testdata, is compiled when a benchmark needs it; where there is
// no C compiler, those rows are skipped, as are those of Boost.Context where that
// is not installed.
//
// Neighbouring runs of one row are alike, and a machine's mood changes over
// minutes. What is published therefore comes from the program in bench/report,
// which repeats the whole selection and makes the tables and plots of the
// README from that:
//
//	cd bench/report && go run . -o DIR
//
// README.md here says what to make of the numbers.
package bench
