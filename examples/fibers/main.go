// Command fibers adds up squares, each of which a green thread computes.
package main

import (
	"fmt"
	"log"

	"lwprt/sched"
)

type job struct{ n, square int }

func square(j *job) { j.square = j.n * j.n }

// sum runs on a fiber and spawns ten. What they work on lies on its own stack,
// which stays in place: a fiber has no heap.
func sum(total *int) {
	var jobs [10]job
	var fibers [10]sched.Fiber
	for i := range jobs {
		jobs[i].n = i + 1
		fibers[i], _ = sched.Go(square, &jobs[i])
	}
	for i, f := range fibers {
		if f.Join() == nil { // as it is not where Go has failed
			*total += jobs[i].square
		}
	}
}

func main() {
	s, err := sched.New(sched.Config{Workers: 2})
	if err != nil {
		log.Fatal(err)
	}
	total := new(int)
	f, err := sched.Spawn(s, sum, total)
	if err != nil {
		log.Fatal(err)
	}
	if err := f.Join(); err != nil {
		log.Fatal(err)
	}
	fmt.Println("1 + 4 + 9 + ... + 100 =", *total, "by", s.Stats().Ends, "fibers")
	if err := s.Close(); err != nil {
		log.Fatal(err)
	}
}
