/*
 * Private to fs: the subcommands of the inferfs program; fs/main.c has their table. argv[0] is the
 * subcommand's name; the return value is the exit status.
 */
#ifndef FS_COMMAND_H
#define FS_COMMAND_H

int mount_main(int argc, char **argv);
int umount_main(int argc, char **argv);
int fsck_main(int argc, char **argv);
int wait_main(int argc, char **argv);

#endif
