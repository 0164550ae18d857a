package lwptest

// emulatorName is the program of qemu-user for this architecture.
const emulatorName = "qemu-x86_64"
