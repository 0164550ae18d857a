package lwptest

// emulatorName is the program of qemu-user for this architecture.
const emulatorName = "qemu-aarch64"
