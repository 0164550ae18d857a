//go:build !race

package sched_test

import (
	"fmt"

	"lwprt/sched"
)

type span struct{ from, to, sum int }

// add runs on a fiber. Its children work on its own stack frame, which stays
// in place, and is there until it has joined them.
func add(s *span) {
	if s.to-s.from <= 10 {
		for n := s.from; n < s.to; n++ {
			s.sum += n
		}
		return
	}
	middle := (s.from + s.to) / 2
	low, high := span{from: s.from, to: middle}, span{from: middle, to: s.to}
	f, err := sched.Go(add, &low)
	if err != nil {
		return
	}
	add(&high)
	if f.Join() == nil {
		s.sum = low.sum + high.sum
	}
}

func Example() {
	s, err := sched.New(sched.Config{Workers: 2})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()
	all := &span{from: 1, to: 1001}
	f, err := sched.Spawn(s, add, all)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(f.Join(), all.sum)
	// Output: <nil> 500500
}

func ExampleFiber_Unpark() {
	s, err := sched.New(sched.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()
	s.Hold() // this goroutine is going to wake somebody
	n := new(int)
	f, err := sched.Spawn(s, func(n *int) {
		sched.Park("the number")
		*n *= 2
	}, n)
	if err != nil {
		fmt.Println(err)
		return
	}
	*n = 21
	f.Unpark()
	s.Release()
	fmt.Println(f.Join(), *n)
	// Output: <nil> 42
}
