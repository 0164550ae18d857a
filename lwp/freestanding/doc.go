// Package freestanding checks before a function runs whether it can run on a
// freestanding thread: whether anything in it, or in what it calls, needs the
// Go runtime.
//
//	func TestWorkerIsFreestanding(t *testing.T) {
//		freestanding.Test(t, worker)
//	}
//
// # How
//
// Check reads the machine code of the running program: what the compiler has
// made, with its escape analysis and inlining, of the function and of all that
// it calls. Into the runtime it follows calls up to where they look at the
// thread's m, which freestanding threads do not have; there they would fault.
// Few functions of the runtime are known by name, and a test holds that those
// which are not followed do fault; the rest is found anew in each program.
//
// Along the way it keeps track of constants, of static func values, method
// tables of interfaces and type arguments, also as arguments of calls. So it
// knows which branches are not taken, and most targets of indirect calls. It
// knows that branches behind asm.Current() == nil are for goroutines.
//
// # What is a fault
//
// Faults are all calls that would fault, except for what the other lists take:
//
//   - Conditional: code from which every path ends in a panic, which correct
//     programs do not reach: failed bounds checks, division by zero, failed
//     assertions, panics behind a condition, also in functions that do nothing
//     but panic. A function that always panics is a fault. Also what happens
//     when a lock of package sync is not free.
//   - Barriers: pointer stores, which call the runtime while the collector marks.
//   - Unresolved: calls of which the target cannot be told.
//
// What depends on the amount of data, such as append and the insertion into a
// map, is a fault. WithinCapacity says that there is room, and makes it
// Conditional. In code for goroutines that the check cannot tell as such,
// Except stops it.
//
// # What it does not see
//
// Nil dereferences and other bad addresses, which fault in place. Functions
// that are reached through data: a func in a struct, a method of an interface
// in a slice, which are Unresolved. That a callee changes, through a pointer, a
// local variable that holds a static func value: the old one counts as called,
// and the new one too, where its value is made. Whether a loop ends. The stack
// that unresolved calls need.
//
// A program that is built with other flags has other code, and is another
// program: without optimization, for one, defer calls the runtime.
package freestanding
