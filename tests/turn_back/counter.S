/* SPDX-License-Identifier: Apache-2.0 */
/* The guest of the tests with disks, as a boot sector: counts, and writes each number to a sector of its own, over and
 * over. What is in memory (COUNT) is the last number that the disk has taken. */
    .code16
    .set COUNT, 0x8000
    .set PACKET, 0x8010   /* of the BIOS's extended write */
    .set BUFFER, 0x9000
    .set SECTORS, 1024    /* from the second on */

    .globl _start
_start:
    xorw %ax, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movw $0x7000, %sp
    sti
    cld
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

    .org 510
    .word 0xaa55
