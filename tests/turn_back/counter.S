/* SPDX-License-Identifier: Apache-2.0 */
/* The guest of the tests with disks, as a boot sector: counts, and writes each number to a sector of its own, over and
 * over. What is in memory (COUNT) is the last number that the disk has taken. */
    .code16
    .set COUNT, 0x8000
    .set PACKET, 0x8010   /* of the BIOS's extended write */
    .set BUFFER, 0x9000
    .set SECTORS, 128     /* from the second on */
    .set LOADED, 0x7c00   /* where the BIOS puts this */
    .set FILLED, 0x100000 /* memory that is no zeroes, which takes a while to send: from here */
    .set FILLED_END, 0x4100000

    .globl _start
_start:
    xorw %ax, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movw $0x7000, %sp
    cld
    cli                            /* a segment that reaches all memory, as protected mode gives it */
    lgdtl LOADED + table - _start
    movl %cr0, %eax
    orb $1, %al
    movl %eax, %cr0
    movw $8, %bx
    movw %bx, %fs
    andb $0xfe, %al
    movl %eax, %cr0
    sti
    movl $FILLED, %edi
fill:
    movl %edi, %fs:(%edi)
    addl $4096, %edi
    cmpl $FILLED_END, %edi
    jb fill
    movl $0, COUNT
next:
    movl COUNT, %eax
    incl %eax
    movl %eax, %ebp
    movw $BUFFER, %di
    movw $128, %cx
    rep stosl
    andl $(SECTORS - 1), %eax
    incl %eax
    movl $0x00010010, PACKET       /* its size; one sector */
    movl $BUFFER, PACKET + 4
    movl %eax, PACKET + 8
    movl $0, PACKET + 12
    movw $0x4300, %ax
    movb $0x80, %dl
    movw $PACKET, %si
    int $0x13
    jc next                        /* the same number again */
    movl %ebp, COUNT
    movw $0x8600, %ax              /* 10 ms */
    xorw %cx, %cx
    movw $10000, %dx
    int $0x15
    jmp next

    .balign 8
segments:
    .quad 0
    .quad 0x00cf92000000ffff       /* data, from 0 to the end */
table:
    .word table - segments - 1
    .long LOADED + segments - _start

    .org 510
    .word 0xaa55
